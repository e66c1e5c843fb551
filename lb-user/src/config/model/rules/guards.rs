//! The rules for who may connect.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::Access;

use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::{AccessList, Guard, Prefix};
use crate::config::reader::{Errors, Place};

pub(super) fn check(raw: &file::Guard, errors: &Errors) {
    check_contradictions(raw, errors);
}

/// A prefix that is both allowed and denied would be what comes last: nobody means that.
fn check_contradictions(raw: &file::Guard, errors: &Errors) {
    let mut allowed = BTreeMap::new();
    for said in sayings(raw).filter(|said| said.access == Access::Allow) {
        allowed.entry(said.prefix).or_insert_with(|| said.origin());
    }
    for said in sayings(raw).filter(|said| said.access == Access::Deny) {
        if let Some(origin) = allowed.get(&said.prefix) {
            let problem = Problem::AllowedAndDenied {
                prefix: said.origin_and_prefix(),
                origin: origin.clone(),
            };
            errors.add(said.place, problem);
        }
    }
}

/// One thing that is said about one prefix.
struct Saying<'a> {
    prefix: Prefix,
    access: Access,
    place: &'a Place,
    /// The file and line, if not the configuration's own.
    file: Option<(&'a str, usize)>,
}

impl Saying<'_> {
    fn origin(&self) -> String {
        match self.file {
            Some((path, line)) => format!("{path}:{line}"),
            None => format!("line {}", self.place.line),
        }
    }

    fn origin_and_prefix(&self) -> String {
        match self.file {
            Some((path, line)) => format!("{path}:{line}: {}", self.prefix),
            None => self.prefix.to_string(),
        }
    }
}

fn sayings(raw: &file::Guard) -> impl Iterator<Item = Saying<'_>> {
    let inline = [(&raw.allow, Access::Allow), (&raw.deny, Access::Deny)];
    let inline = inline.into_iter().flat_map(|(list, access)| {
        list.iter().map(move |given| Saying {
            prefix: given.value,
            access,
            place: &given.place,
            file: None,
        })
    });
    let files = [
        (&raw.allow_file, Access::Allow),
        (&raw.deny_file, Access::Deny),
    ];
    let files = files.into_iter().filter_map(|(file, access)| {
        let file = file.as_ref()?;
        Some((file, access))
    });
    let files = files.flat_map(|(file, access)| {
        let prefixes = file.value.prefixes.iter();
        prefixes.map(move |(line, prefix)| Saying {
            prefix: *prefix,
            access,
            place: &file.place,
            file: Some((&file.value.path, *line)),
        })
    });
    inline.chain(files)
}

pub(super) fn build(raw: Option<&file::Guard>, vip: IpAddr) -> Guard {
    let Some(raw) = raw else {
        return Guard::default();
    };
    let of_family = sayings(raw).filter(|said| said.prefix.is_v4() == vip.is_ipv4());
    let entries = of_family.map(|said| (said.prefix, said.access)).collect();
    let denies_by_default = !raw.allow.is_empty() || raw.allow_file.is_some();
    Guard {
        access: Arc::new(AccessList::new(entries, denies_by_default)),
    }
}

/// How many entries the lists of all services take.
pub(super) fn entries(raw: &file::Config) -> usize {
    let guards = raw.services.iter().filter_map(|service| {
        let guard = service.guard.as_ref()?;
        Some(build(Some(guard), service.vip.as_ref()?.value))
    });
    guards.map(|guard| guard.access.entries().len()).sum()
}
