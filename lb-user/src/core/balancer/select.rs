//! Finding the backend that an operator means.

use crate::core::balancer::BackendKey;

/// Why a name means no single backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing is called so.
    #[error("no backend is called `{name}`; there are: {}", list(.known))]
    Unknown {
        name: String,
        known: Vec<BackendKey>,
    },
    /// Several services have a backend of that name.
    #[error("`{name}` could be any of: {}; give one of these", list(.candidates))]
    Ambiguous {
        name: String,
        candidates: Vec<BackendKey>,
    },
}

fn list(keys: &[BackendKey]) -> String {
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.join(", ")
}

pub(super) fn select<'a>(
    known: impl Iterator<Item = &'a BackendKey> + Clone,
    name: &str,
) -> Result<BackendKey, SelectError> {
    let is_meant = |key: &&BackendKey| match name.split_once('/') {
        Some((service, backend)) => key.service() == service && key.backend() == backend,
        None => key.backend() == name,
    };
    let candidates: Vec<BackendKey> = known.clone().filter(is_meant).cloned().collect();
    match <[BackendKey; 1]>::try_from(candidates) {
        Ok([key]) => Ok(key),
        Err(candidates) if candidates.is_empty() => Err(SelectError::Unknown {
            name: name.to_owned(),
            known: known.cloned().collect(),
        }),
        Err(candidates) => Err(SelectError::Ambiguous {
            name: name.to_owned(),
            candidates,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{SelectError, select};
    use crate::core::balancer::BackendKey;

    fn known() -> [BackendKey; 3] {
        [("mqtt", "a"), ("mqtt", "b"), ("tls", "a")].map(|(s, b)| BackendKey::new(s, b))
    }

    #[test]
    fn full_name_means_one_backend() {
        assert_eq!(
            select(known().iter(), "tls/a"),
            Ok(BackendKey::new("tls", "a"))
        );
    }

    #[test]
    fn short_name_suffices_while_it_is_unique() {
        assert_eq!(
            select(known().iter(), "b"),
            Ok(BackendKey::new("mqtt", "b"))
        );
    }

    #[test]
    fn ambiguous_name_lists_who_could_be_meant() {
        let error = select(known().iter(), "a").unwrap_err();
        assert!(matches!(error, SelectError::Ambiguous { .. }));
        assert!(error.to_string().contains("mqtt/a, tls/a"), "{error}");
    }

    #[test]
    fn unknown_name_lists_all() {
        let error = select(known().iter(), "mqtt/c").unwrap_err();
        assert!(matches!(error, SelectError::Unknown { .. }));
        assert!(
            error.to_string().contains("mqtt/a, mqtt/b, tls/a"),
            "{error}"
        );
    }
}
