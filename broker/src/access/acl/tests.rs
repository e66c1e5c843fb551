use proptest::prelude::*;

use super::*;
use crate::access::identity::Proof;

fn user(name: &str) -> Identity {
    Identity::of(Some(name), Proof::Nothing)
}

fn parse(text: &str) -> Acl {
    Acl::parse(text, Effect::Deny).unwrap()
}

fn problem(text: &str) -> (usize, LineProblem) {
    match Acl::parse(text, Effect::Deny) {
        Err(AclError::Line { line, problem }) => (line, problem),
        Err(AclError::Read(error)) => panic!("{error}"),
        Ok(_acl) => panic!("{text:?} was taken"),
    }
}

#[test]
fn first_rule_that_matches_decides() {
    let acl = parse(
        "# topics\n\n\
         deny  all         publish  door/lock\n\
         allow user alice  all      door/#\n\
         allow client c1   publish  door/lock\n\
         allow client c1   publish  lamp one/+\n",
    );
    let alice = acl.permit(&user("alice"), "c0");
    assert!(!alice.may_publish("door/lock"));
    assert!(alice.may_publish("door/bell"));
    assert!(alice.may_publish("door"));
    assert!(!alice.may_publish("lamp one/x"));
    let both = acl.permit(&user("alice"), "c1");
    assert!(!both.may_publish("door/lock"), "the first rule is before");
    assert!(both.may_publish("lamp one/x"));
    let bob = acl.permit(&user("bob"), "c0");
    assert!(!bob.may_publish("door/bell"));
}

#[test]
fn default_decides_what_no_rule_does() {
    let acl = Acl::parse("deny all all a/#\n", Effect::Allow).unwrap();
    let permit = acl.permit(&user("alice"), "c");
    assert!(permit.may_publish("b"));
    assert!(permit.may_subscribe("b/#"));
    assert!(!permit.may_subscribe("#"), "it would bring a/#");
    assert!(!permit.may_publish("a"));
    assert!(Permit::everything().may_subscribe("#"));
    assert!(Permit::everything().may_subscribe("$SYS/#"));
}

#[test]
fn subscription_is_covered_as_a_whole() {
    let acl = parse(
        "deny  all subscribe home/+/secret\n\
         allow all subscribe home/#\n\
         allow all publish   #\n",
    );
    let permit = acl.permit(&Identity::ANONYMOUS, "c");
    for (filter, allowed) in [
        ("home/kitchen/lamp", true),
        ("home/kitchen", true),
        ("home/+/lamp", true),
        ("home/kitchen/secret", false),
        ("home/kitchen/+", false),
        ("home/kitchen/#", false),
        ("home/#", false),
        ("#", false),
        ("other", false),
        ("$share/g/home/+/lamp", true),
        ("$share/g/home/#", false),
        ("$queue/home/+/lamp", true),
        ("$queue/home/#", false),
    ] {
        assert_eq!(permit.may_subscribe(filter), allowed, "{filter}");
    }
}

#[test]
fn names_stand_in_their_places() {
    let acl = parse(
        "allow all       publish   dev/%c/state\n\
         allow all       subscribe user/%u/#\n\
         allow user bob  publish   100%%/%u-%c\n\
         allow anonymous subscribe public/%c\n",
    );
    let bob = acl.permit(&user("bob"), "c7");
    assert!(bob.may_publish("dev/c7/state"));
    assert!(!bob.may_publish("dev/c8/state"));
    assert!(bob.may_subscribe("user/bob/inbox/+"));
    assert!(!bob.may_subscribe("user/+/inbox"));
    assert!(bob.may_publish("100%/bob-c7"));
    assert!(!bob.may_subscribe("public/c7"));
    let nobody = acl.permit(&Identity::ANONYMOUS, "c7");
    assert!(nobody.may_publish("dev/c7/state"));
    assert!(nobody.may_subscribe("public/c7"));
    assert!(!nobody.may_subscribe("user//x"));
    assert!(!nobody.may_subscribe("user/bob/inbox"));
}

#[test]
fn names_widen_no_rule() {
    let acl = parse(
        "allow all publish dev/%c/state\n\
         allow all subscribe %u/#\n",
    );
    for id in ["+", "#", "a/b", "a+", ""] {
        let permit = acl.permit(&user("$SYS"), id);
        for topic in ["dev/x/state", "dev/a/b/state", "dev/+/state", "dev//state"] {
            assert!(!permit.may_publish(topic), "{id} {topic}");
        }
        assert!(!permit.may_subscribe("$SYS/#"));
        assert!(!permit.may_subscribe("$SYS/broker"));
    }
    assert!(!acl.permit(&user("#"), "c").may_subscribe("#"));
    assert!(!acl.permit(&user("a/b"), "c").may_subscribe("a/b/c"));
    assert!(!acl.permit(&user(""), "c").may_subscribe("/a"));
}

#[test]
fn names_escape_no_rule_that_denies() {
    let acl = parse(
        "deny  all publish dev/%c/lock\n\
         allow all publish #\n",
    );
    assert!(acl.permit(&user("u"), "a").may_publish("dev/b/lock"));
    assert!(!acl.permit(&user("u"), "a").may_publish("dev/a/lock"));
    assert!(!acl.permit(&user("u"), "a/b").may_publish("dev/a/b/lock"));
    assert!(!acl.permit(&user("u"), "a/b").may_publish("anything"));
}

#[test]
fn wildcards_leave_out_what_starts_with_a_dollar() {
    let acl = parse("allow all all #\nallow user admin subscribe $SYS/#\n");
    assert!(!acl.permit(&user("bob"), "c").may_subscribe("$SYS/#"));
    assert!(acl.permit(&user("bob"), "c").may_subscribe("#"));
    assert!(acl.permit(&user("admin"), "c").may_subscribe("$SYS/+"));
    assert!(!acl.permit(&user("admin"), "c").may_publish("$SYS/x"));
}

#[test]
fn names_with_blanks_are_quoted() {
    let acl = parse("allow user \"Jo Doe\"  publish a b/#\nallow client \"#1\" publish c\n");
    assert!(acl.permit(&user("Jo Doe"), "x").may_publish("a b/c"));
    assert!(acl.permit(&user("Jo"), "#1").may_publish("c"));
}

#[test]
fn bad_lines_are_named() {
    for (line, expected) in [
        ("permit all all #", LineProblem::Effect),
        ("allow", LineProblem::Who(String::new())),
        ("allow bob all #", LineProblem::Who("bob".to_owned())),
        ("allow user", LineProblem::Name),
        ("allow user \"bob all #", LineProblem::Name),
        ("allow user \"\" all #", LineProblem::Name),
        ("allow all read #", LineProblem::Action("read".to_owned())),
        ("allow all all", LineProblem::Filter(String::new())),
        (
            "allow all all a/#/b",
            LineProblem::Filter("a/#/b".to_owned()),
        ),
        ("allow all all a+", LineProblem::Filter("a+".to_owned())),
        ("allow all all a%cd%", LineProblem::Percent),
        ("allow all all a/%x", LineProblem::Percent),
        ("allow all all %c+", LineProblem::Filter("%c+".to_owned())),
        ("allow all subscribe $share/g/a", LineProblem::Share),
    ] {
        let text = format!("allow all all a/#\n{line}\n");
        assert_eq!(problem(&text), (2, expected), "{line}");
    }
}

/// A rule for everyone about one of few filters.
fn rules() -> impl Strategy<Value = String> {
    let effects = prop::sample::select(vec!["allow", "deny"]);
    let filters = prop::sample::select(vec!["#", "a", "a/#", "a/+", "+/b", "a/b", "+", "b/#"]);
    let rule = (effects, filters).prop_map(|(effect, filter)| format!("{effect} all all {filter}"));
    prop::collection::vec(rule, 0..6).prop_map(|rules| rules.join("\n"))
}

proptest! {
    /// Publications are decided topic by topic, so they say what a subscription may bring.
    #[test]
    fn subscription_brings_only_what_is_allowed(
        text in rules(),
        filter in prop::sample::select(vec!["#", "a", "a/#", "a/+", "+/b", "a/b", "+", "+/+"]),
        default in prop::sample::select(vec![Effect::Allow, Effect::Deny]),
    ) {
        let acl = Acl::parse(&text, default).unwrap();
        let permit = acl.permit(&Identity::ANONYMOUS, "c");
        let topics = ["a", "b", "c", "a/a", "a/b", "a/c", "b/b", "b/a", "c/b", "c/c", "a/b/c", "b/a/b"];
        if permit.may_subscribe(filter) {
            for topic in topics {
                let brings = cover::covers(filter, topic);
                prop_assert!(!brings || permit.may_publish(topic), "{topic}");
            }
        } else if !filter.contains(['+', '#']) {
            prop_assert!(!permit.may_publish(filter), "of one topic both decide alike");
        }
    }
}
