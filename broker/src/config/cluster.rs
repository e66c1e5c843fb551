//! The rules for a node that is one of several.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use toml::Spanned;

use super::{check::Check, file};
use crate::cluster::Acknowledge;

/// The cluster that the node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The same on all nodes of it.
    pub name: String,
    /// Where other nodes call this one.
    pub listen: SocketAddr,
    /// Nodes that are called, by host and port.
    pub seeds: Vec<String>,
    pub key_file: PathBuf,
    pub acknowledge: Acknowledge,
    /// A node that is silent for so long is held for gone.
    pub lease: Duration,
    pub shared_subscriptions: Sharing,
}

/// Which members of a group come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None: each gets as much as any other, wherever it is.
    Fair,
    /// Those of the node where a message is published, as long as they are connected and take it.
    Local,
}

/// Seeds are called for ever, so there are few of them.
const MOST_SEEDS: usize = 16;

impl Check<'_> {
    pub(super) fn cluster(&mut self, raw: file::Cluster) -> Option<Cluster> {
        let file::Cluster {
            name,
            listen,
            seeds,
            key_file,
            acknowledge,
            lease,
            shared_subscriptions,
        } = raw;
        if !crate::cluster::is_valid_node(name.get_ref()) {
            let message = "1 to 64 letters, digits, '-', '_' or '.'";
            self.refuse("cluster.name", name.span(), message);
        }
        let listen = self.parse("cluster.listen", &listen, "an address and port");
        if key_file.get_ref().is_empty() {
            let message = "the path of a file that `tidegate-broker cluster key` has made";
            self.refuse("cluster.key_file", key_file.span(), message);
        }
        Some(Cluster {
            name: name.into_inner(),
            listen: listen?,
            seeds: self.seeds(seeds),
            key_file: PathBuf::from(key_file.into_inner()),
            acknowledge: self.acknowledge(acknowledge),
            lease: self.lease(lease),
            shared_subscriptions: self.sharing(shared_subscriptions),
        })
    }

    fn seeds(&mut self, raw: Option<Spanned<Vec<Spanned<String>>>>) -> Vec<String> {
        let Some(raw) = raw else { return Vec::new() };
        if raw.get_ref().len() > MOST_SEEDS {
            let message = format!("{MOST_SEEDS} at most; one or two that are up are enough");
            self.refuse("cluster.seeds", raw.span(), message);
        }
        let mut seeds = Vec::new();
        for (index, seed) in raw.into_inner().into_iter().enumerate() {
            let key = format!("cluster.seeds[{index}]");
            if !is_address(seed.get_ref()) {
                let message = "not a host and port such as \"broker2:7883\"";
                self.refuse(&key, seed.span(), message);
            } else if seeds.contains(seed.get_ref()) {
                self.refuse(&key, seed.span(), "listed twice");
            } else {
                seeds.push(seed.into_inner());
            }
        }
        seeds
    }

    fn acknowledge(&mut self, raw: Option<Spanned<String>>) -> Acknowledge {
        match raw.as_ref().map(|raw| raw.get_ref().as_str()) {
            None | Some("replicated") => Acknowledge::Replicated,
            Some("local") => Acknowledge::Local,
            Some(_) => {
                let span = raw.as_ref().map_or(0..0, Spanned::span);
                let message = "must be \"replicated\" or \"local\"";
                self.refuse("cluster.acknowledge", span, message);
                Acknowledge::Replicated
            }
        }
    }

    fn sharing(&mut self, raw: Option<Spanned<String>>) -> Sharing {
        match raw.as_ref().map(|raw| raw.get_ref().as_str()) {
            None | Some("fair") => Sharing::Fair,
            Some("local") => Sharing::Local,
            Some(_) => {
                let span = raw.as_ref().map_or(0..0, Spanned::span);
                let message = "must be \"fair\" or \"local\"";
                self.refuse("cluster.shared_subscriptions", span, message);
                Sharing::Fair
            }
        }
    }

    fn lease(&mut self, raw: Option<Spanned<String>>) -> Duration {
        let span = raw.as_ref().map_or(0..0, Spanned::span);
        let lease = self.duration("cluster.lease", raw, Duration::from_secs(2));
        let (shortest, longest) = crate::cluster::LEASE;
        if !(shortest..=longest).contains(&lease) {
            self.refuse("cluster.lease", span, "must be \"500ms\" to \"60s\"");
        }
        lease
    }
}

/// Whether the text is a host, by name or address, and a port.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            (1..=253).contains(&host.len()) && host.chars().all(legal)
        }
    };
    is_port && is_host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const WHOLE: &str = "name = \"plant\"\nlisten = \"127.0.0.1:7883\"\nkey_file = \"/k\"\n";

    fn parse(settings: &str) -> Result<Cluster, String> {
        let text = format!(
            "node = \"n\"\naccess.anonymous = true\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n[cluster]\n{settings}"
        );
        let config = Config::parse(&text).map_err(|error| error.to_string())?;
        config.cluster().cloned().ok_or_else(|| "none".to_owned())
    }

    #[test]
    fn defaults_are_safe() {
        let cluster = parse(WHOLE).unwrap();
        assert_eq!(cluster.acknowledge, Acknowledge::Replicated);
        assert_eq!(cluster.lease, Duration::from_secs(2));
        assert!(cluster.seeds.is_empty());
        assert_eq!(cluster.shared_subscriptions, Sharing::Fair);
        let settings = "seeds = [\"b:1\", \"[::1]:2\"]\nacknowledge = \"local\"\nlease = \"5s\"\n\
                        shared_subscriptions = \"local\"\n";
        let cluster = parse(&format!("{WHOLE}{settings}")).unwrap();
        assert_eq!(cluster.seeds, ["b:1", "[::1]:2"]);
        assert_eq!(cluster.acknowledge, Acknowledge::Local);
        assert_eq!(cluster.shared_subscriptions, Sharing::Local);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (settings, told) in [
            (
                "seeds = [\"broker2\"]\n",
                "line 9: cluster.seeds[0]: not a host and port",
            ),
            ("seeds = [\"b:0\"]\n", "cluster.seeds[0]: not a host"),
            ("seeds = [\"b c:1\"]\n", "cluster.seeds[0]: not a host"),
            (
                "seeds = [\"b:1\", \"b:1\"]\n",
                "cluster.seeds[1]: listed twice",
            ),
            ("acknowledge = \"no\"\n", "cluster.acknowledge: must be"),
            (
                "shared_subscriptions = \"near\"\n",
                "cluster.shared_subscriptions: must be",
            ),
            ("lease = \"100ms\"\n", "cluster.lease: must be"),
            ("lease = \"2m\"\n", "cluster.lease: must be"),
        ] {
            let error = parse(&format!("{WHOLE}{settings}")).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        for (good, bad, told) in [
            ("plant", "a b", "cluster.name: 1 to 64"),
            ("127.0.0.1:7883", "x", "cluster.listen: \"x\" is not"),
            ("/k", "", "cluster.key_file: the path"),
        ] {
            let error = parse(&WHOLE.replace(good, bad)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let seeds: Vec<_> = (1..=17).map(|port| format!("\"b:{port}\"")).collect();
        let error = parse(&format!("{WHOLE}seeds = [{}]\n", seeds.join(", "))).unwrap_err();
        assert!(error.contains("16 at most"), "{error}");
    }
}
