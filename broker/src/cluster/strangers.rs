//! Places for callers that have not shown that they have the key.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, rc::Rc};

/// Callers from hosts where no member is, at a time.
const MOST: usize = 16;

/// Callers of one host. Others keep theirs when one fills its own.
const MOST_OF_HOST: usize = 4;

/// Who is being let in.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    hosts: BTreeMap<IpAddr, usize>,
    /// Those from hosts where no member is.
    unknown: usize,
}

/// A caller's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Rc<RefCell<Strangers>>,
    host: IpAddr,
    is_known: bool,
}

impl Strangers {
    /// A place for a caller, if there is one. Hosts of members have places of their own, as a member that
    /// has lost its connection has to be back before its lease is over.
    pub(super) fn enter(this: &Rc<RefCell<Self>>, host: IpAddr, is_known: bool) -> Option<Place> {
        let strangers = &mut *this.borrow_mut();
        let of_host = strangers.hosts.get(&host).copied().unwrap_or(0);
        if of_host >= MOST_OF_HOST || !is_known && strangers.unknown >= MOST {
            return None;
        }
        strangers.hosts.insert(host, of_host + 1);
        strangers.unknown += usize::from(!is_known);
        Some(Place {
            strangers: Rc::clone(this),
            host,
            is_known,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let strangers = &mut *self.strangers.borrow_mut();
        strangers.unknown -= usize::from(!self.is_known);
        if let Some(of_host) = strangers.hosts.get_mut(&self.host) {
            *of_host -= 1;
            if *of_host == 0 {
                strangers.hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn neither_one_host_nor_all_strangers_keep_members_out() {
        let strangers = Rc::default();
        let enter = |number, is_known| Strangers::enter(&strangers, host(number), is_known);
        let mut places = Vec::new();
        for number in 1..=4 {
            for _ in 0..MOST_OF_HOST {
                places.push(enter(number, false).unwrap());
            }
            assert!(enter(number, false).is_none());
        }
        assert!(enter(5, false).is_none());
        let member = enter(5, true).unwrap();
        assert!(enter(1, true).is_none());
        drop((places, member));
        let strangers = strangers.borrow();
        assert!(strangers.hosts.is_empty() && strangers.unknown == 0);
    }
}
