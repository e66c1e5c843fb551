//! How long clients may be silent: by the configuration, and by their own word.

use std::time::Duration;

use super::{changed, right, wrong};

fn mqtt(more: &str) -> String {
    changed(
        "port = 1883",
        &format!("port = 1883\nprotocol = \"mqtt\"\n{more}"),
    )
}

#[test]
fn a_clients_word_is_believed_up_to_twice_the_keep_alive_unless_told_otherwise() {
    for (more, keep_alive, most) in [
        ("", 1_200, 2_400),
        ("keep_alive = \"5m\"", 300, 600),
        ("keep_alive = \"1d\"", 86_400, 172_800),
        ("keep_alive_max = \"20m\"", 1_200, 1_200),
        ("keep_alive = \"30s\"\nkeep_alive_max = \"19h\"", 30, 68_400),
    ] {
        let config = right(&mqtt(more));
        let service = &config.services()[0];
        let found = (service.keep_alive(), service.keep_alive_max());
        let expected = (Duration::from_secs(keep_alive), Duration::from_secs(most));
        assert_eq!(found, expected, "{more}");
    }
}

#[test]
fn whatever_is_wrong_with_it_is_reported_at_its_key() {
    let short = "keep_alive_max: shorter than `keep_alive`; make it";
    for (text, expected) in [
        (
            mqtt("keep_alive_max = \"19m\""),
            format!("{short} 20m at least"),
        ),
        (
            mqtt("keep_alive = \"1h\"\nkeep_alive_max = \"59m\""),
            format!("{short} 1h at least"),
        ),
        (
            mqtt("keep_alive_max = \"25h\""),
            "keep_alive_max: \"25h\" is not a duration above 0 and up to \"1d\"".to_owned(),
        ),
        (
            changed("port = 1883", "port = 1883\nkeep_alive_max = \"1h\""),
            "keep_alive_max: only for services with `protocol = \"mqtt\"`".to_owned(),
        ),
    ] {
        let message = wrong(&text);
        assert!(message.contains(&expected), "{expected:?} in\n{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}
