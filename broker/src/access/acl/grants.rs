//! What a login says itself that its client may do: lists of filters, in a token or in an answer.

use serde::Deserialize;
use thiserror::Error;

use super::{
    Action, Effect, Rule,
    line::{LineProblem, Pattern},
    permit::Compiled,
};

/// Each client holds its own.
const MOST: usize = 128;

/// Of a filter in bytes, as packets and records have them.
const LONGEST: usize = u16::MAX as usize;

/// Why what a login says cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::access) enum GrantsError {
    #[error("not {{\"publish\": [FILTER, ...], \"subscribe\": [FILTER, ...]}}")]
    Form,
    #[error("more than {MOST} filters")]
    TooMany,
    #[error("a filter is longer than one can be")]
    TooLong,
    #[error(transparent)]
    Filter(LineProblem),
}

/// The filters that a client may use beside what the ACL file decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants(Box<[Rule]>);

/// As logins write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
}

impl Grants {
    pub(in crate::access) fn read(value: &serde_json::Value) -> Result<Self, GrantsError> {
        // A list would do for the lists, in their order.
        let object = value.as_object().ok_or(GrantsError::Form)?;
        let Lists { publish, subscribe } =
            Lists::deserialize(object).map_err(|_error| GrantsError::Form)?;
        Self::of(&publish, &subscribe)
    }

    /// Of filters to publish and to subscribe to, as [`Self::filters`] tells them; `None` if they
    /// cannot be meant.
    pub(crate) fn of_filters(publish: &[&str], subscribe: &[&str]) -> Option<Self> {
        Self::of(publish, subscribe).ok()
    }

    fn of(publish: &[impl AsRef<str>], subscribe: &[impl AsRef<str>]) -> Result<Self, GrantsError> {
        if publish.len() + subscribe.len() > MOST {
            return Err(GrantsError::TooMany);
        }
        let publish = publish.iter().map(AsRef::as_ref);
        let publish = publish.map(|filter| (Action::Publish, filter));
        let subscribe = subscribe.iter().map(AsRef::as_ref);
        let subscribe = subscribe.map(|filter| (Action::Subscribe, filter));
        let rules = publish.chain(subscribe).map(|(action, filter)| {
            if filter.len() > LONGEST {
                return Err(GrantsError::TooLong);
            }
            Ok(Rule {
                // Behind all rules of the file.
                index: usize::MAX,
                effect: Effect::Allow,
                action,
                pattern: Pattern::parse(filter).map_err(GrantsError::Filter)?,
            })
        });
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// The filters to publish to, and those to subscribe to.
    pub(crate) fn filters(&self) -> [Vec<String>; 2] {
        [Action::Publish, Action::Subscribe].map(|action| {
            let rules = self.0.iter().filter(|rule| rule.action == action);
            rules.map(|rule| rule.pattern.to_string()).collect()
        })
    }

    pub(super) fn compile(&self, user: Option<&str>, client_id: &str) -> Vec<Compiled> {
        let rules = self.0.iter();
        rules
            .filter_map(|rule| rule.compile(user, client_id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{Acl, Permit},
        *,
    };
    use crate::access::Identity;

    fn permit(file: Option<&str>, lists: serde_json::Value) -> Permit {
        let mut identity = Identity::ANONYMOUS;
        identity.user = Some("alice".into());
        identity.grants = Some(std::sync::Arc::new(Grants::read(&lists).unwrap()));
        match file {
            Some(file) => Acl::parse(file, Effect::Allow)
                .unwrap()
                .permit(&identity, "c1"),
            None => Permit::granted(&identity, "c1"),
        }
    }

    #[test]
    fn only_what_is_granted_is_allowed() {
        let lists = json!({"publish": ["dev/%c/state"], "subscribe": ["user/%u/#"]});
        for file in [None, Some("")] {
            let permit = permit(file, lists.clone());
            assert!(permit.may_publish("dev/c1/state"));
            assert!(!permit.may_publish("dev/c2/state"));
            assert!(!permit.may_publish("user/alice/x"));
            assert!(permit.may_subscribe("user/alice/x"));
            assert!(!permit.may_subscribe("user/+/x"));
            assert!(!permit.may_subscribe("dev/c1/state"));
        }
        let nothing = permit(None, json!({}));
        assert!(!nothing.may_publish("a") && !nothing.may_subscribe("a"));
    }

    #[test]
    fn rules_of_the_file_come_first() {
        let file = "deny all all secret/#\nallow user alice publish open\n";
        let permit = permit(Some(file), json!({"publish": ["secret/a", "b"]}));
        assert!(!permit.may_publish("secret/a"));
        assert!(permit.may_publish("open"));
        assert!(permit.may_publish("b"));
        assert!(!permit.may_publish("c"), "the file's default is for others");
    }

    #[test]
    fn lists_that_cannot_be_meant_are_refused() {
        for (lists, expected) in [
            (json!([]), GrantsError::Form),
            (json!({"publish": "a"}), GrantsError::Form),
            (json!({"publish": [1]}), GrantsError::Form),
            (json!({"pub": ["a"]}), GrantsError::Form),
            (
                json!({"publish": vec!["a"; MOST + 1]}),
                GrantsError::TooMany,
            ),
            (
                json!({"publish": ["a/%x"]}),
                GrantsError::Filter(LineProblem::Percent),
            ),
            (
                json!({"subscribe": ["$share/g/a"]}),
                GrantsError::Filter(LineProblem::Share),
            ),
            (
                json!({"subscribe": ["a#"]}),
                GrantsError::Filter(LineProblem::Filter("a#".to_owned())),
            ),
        ] {
            assert_eq!(Grants::read(&lists), Err(expected), "{lists}");
        }
    }
}
