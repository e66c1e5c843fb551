//! How many clients a node of a cluster should have.

use thiserror::Error;

/// What is known of another node that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) clients: u64,
    /// New clients may come.
    pub(crate) welcomes: bool,
}

/// Why there is no average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NoShare {
    #[error("there is no other node that clients could go to")]
    Alone,
    #[error("not all nodes have told yet how many clients they have")]
    Untold,
    #[error("all clients of this node are sent away already")]
    Evacuating,
}

/// As many clients as each node would have if they were spread evenly over those that take any: a node
/// that sends all away keeps none, and its clients go to all of these.
pub(crate) fn fair_share(
    own: Other,
    others: impl IntoIterator<Item = Option<Other>>,
) -> Result<u64, NoShare> {
    if !own.welcomes {
        return Err(NoShare::Evacuating);
    }
    let (mut clients, mut nodes) = (own.clients, 1);
    for other in others {
        let other = other.ok_or(NoShare::Untold)?;
        clients = clients.saturating_add(other.clients);
        nodes += u64::from(other.welcomes);
    }
    if nodes == 1 {
        return Err(NoShare::Alone);
    }
    // Rounded up: nobody goes where one more would be one too many.
    Ok(clients.div_ceil(nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(clients: u64) -> Other {
        Other {
            clients,
            welcomes: true,
        }
    }

    fn closed(clients: u64) -> Other {
        Other {
            clients,
            welcomes: false,
        }
    }

    #[test]
    fn clients_are_shared_by_the_nodes_that_take_any() {
        assert_eq!(fair_share(open(100), [Some(open(0))]), Ok(50));
        assert_eq!(
            fair_share(open(100), [Some(open(0)), Some(open(1))]),
            Ok(34)
        );
        // Those of a node that is emptied are to be shared, too.
        let others = [Some(closed(50)), Some(open(0))];
        assert_eq!(fair_share(open(100), others), Ok(75));
        assert_eq!(
            fair_share(open(3), [Some(open(u64::MAX))]),
            Ok(u64::MAX.div_ceil(2))
        );
    }

    #[test]
    fn who_knows_nobody_to_share_with_says_so() {
        assert_eq!(fair_share(open(9), []), Err(NoShare::Alone));
        assert_eq!(fair_share(open(9), [Some(closed(1))]), Err(NoShare::Alone));
        assert_eq!(
            fair_share(open(9), [Some(open(1)), None]),
            Err(NoShare::Untold)
        );
        assert_eq!(
            fair_share(closed(9), [Some(open(1))]),
            Err(NoShare::Evacuating)
        );
    }
}
