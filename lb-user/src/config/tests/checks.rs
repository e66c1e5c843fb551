//! What an HTTP check takes for a wish to be left alone.

use super::{changed, right, wrong};
use crate::config::model::{Check, Probe};

fn check(of: &str, more: &str) -> String {
    changed("type = \"mqtt\"", &format!("type = \"{of}\"\n{more}"))
}

#[test]
fn status_that_drains_is_nobodys_unless_given() {
    for (more, expected) in [("", None), ("drain_on = 503", Some(503))] {
        let config = right(&check("http", more));
        let Some(Probe::Http(http)) = config.services()[0].check().map(Check::probe) else {
            panic!("an HTTP check");
        };
        assert_eq!((http.expect(), http.drain_on()), (200, expected));
    }
}

#[test]
fn status_that_drains_is_another_than_that_of_health_and_of_http_alone() {
    for (of, more, expected) in [
        (
            "http",
            "drain_on = 200",
            "check.drain_on: 200 is not another status than that of health",
        ),
        (
            "http",
            "expect = 204\ndrain_on = 204",
            "check.drain_on: 204 is not another status than that of health",
        ),
        (
            "mqtt",
            "drain_on = 503",
            "check.drain_on: only for checks of type http",
        ),
    ] {
        let message = wrong(&check(of, more));
        assert!(message.contains(expected), "{message}");
    }
}
