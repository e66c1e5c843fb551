//! The example configs that users copy, with the few keys changed that a laboratory needs.
//!
//! They are edited as text: what runs here is, line for line, what the reader of the example runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Host;

/// One of the example configs.
#[derive(Clone, Copy, Debug)]
pub enum Example {
    /// `tidegate`, direct server return.
    TidegateDsr,
    /// `tidegate`, full NAT.
    TidegateNat,
    /// `tidegate`, tunnels.
    TidegateTunnel,
    /// `tidegate-broker`.
    Broker,
}

impl Example {
    fn path(self) -> &'static str {
        match self {
            Self::TidegateDsr => "lb-user/configs/tidegate-dsr.toml",
            Self::TidegateNat => "lb-user/configs/tidegate-nat.toml",
            Self::TidegateTunnel => "lb-user/configs/tidegate-tunnel.toml",
            Self::Broker => "broker/configs/tidegate-broker.toml",
        }
    }
}

/// A TOML file as text.
#[derive(Clone, Debug)]
pub struct ConfigText(String);

impl ConfigText {
    /// Reads an example from the source tree.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn example(example: Example) -> Result<Self> {
        let path = workspace().join(example.path());
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sets a key in every table of that name, `""` being the top: changes the line or adds one.
    ///
    /// `table` is what stands between the brackets; `value` is TOML. A table that is not there is added.
    #[must_use]
    pub fn set(self, table: &str, key: &str, value: &str) -> Self {
        let line = format!("{key} = {value}");
        let mut out: Vec<&str> = Vec::new();
        let mut inside = table.is_empty();
        let mut found = inside;
        // Where the line goes when the table turns out not to have the key.
        let mut pending = inside.then_some(0);
        for current in self.0.lines() {
            if let Some(name) = table_name(current) {
                if let Some(at) = pending.take() {
                    out.insert(at, &line);
                }
                inside = name == table;
                out.push(current);
                if inside {
                    found = true;
                    pending = Some(out.len());
                }
                continue;
            }
            if inside && key_of(current) == Some(key) {
                pending = None;
                out.push(&line);
            } else {
                out.push(current);
            }
        }
        if let Some(at) = pending {
            out.insert(at, &line);
        }
        let header = format!("[{table}]");
        if !found {
            out.extend(["", &header, &line]);
        }
        Self(out.join("\n") + "\n")
    }

    /// The value of a key in the first table of that name, as it stands, without a comment.
    pub fn get(&self, table: &str, key: &str) -> Option<&str> {
        let mut inside = table.is_empty();
        for line in self.0.lines() {
            if let Some(name) = table_name(line) {
                inside = name == table;
            } else if inside && key_of(line) == Some(key) {
                let (_, value) = line.split_once('=')?;
                return Some(value.split('#').next().unwrap_or(value).trim());
            }
        }
        None
    }

    /// Removes every table of that name with its keys.
    #[must_use]
    pub fn without(self, table: &str) -> Self {
        let mut keep = true;
        let lines = self.0.lines().filter(|line| {
            if let Some(name) = table_name(line) {
                keep = name != table;
            }
            keep
        });
        Self(lines.collect::<Vec<_>>().join("\n") + "\n")
    }

    /// Replaces text.
    #[must_use]
    pub fn replace(self, from: &str, to: &str) -> Self {
        Self(self.0.replace(from, to))
    }

    /// Adds text at the end.
    #[must_use]
    pub fn append(self, text: &str) -> Self {
        Self(self.0 + text)
    }

    /// Writes it into the host's directory.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn write(&self, host: &Host, name: &str) -> Result<PathBuf> {
        let path = host.work_dir().join(name);
        std::fs::write(&path, &self.0)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl From<&str> for ConfigText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

fn workspace() -> &'static Path {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    dir.parent().unwrap_or(dir)
}

fn table_name(line: &str) -> Option<&str> {
    let line = line.split('#').next().unwrap_or(line).trim();
    let line = line.strip_prefix('[')?.strip_suffix(']')?;
    Some(line.trim_matches(['[', ']']))
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    Some(key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "interface = \"eth0\"\n[api]  # local\nsocket = \"/run/x\"\n\
        [[service]]\nname = \"a\"\nforward = \"dsr\"\n[service.check]\ninterval = \"2s\"\n\
        [[service]]\nname = \"b\"\n";

    #[test]
    fn a_key_is_changed_where_it_stands() {
        let text = ConfigText::from(TEXT).set("api", "socket", "\"/tmp/y\"");
        assert_eq!(text.as_str(), TEXT.replace("/run/x", "/tmp/y"));
    }

    #[test]
    fn a_key_is_set_in_every_table_of_the_name() {
        let text = ConfigText::from(TEXT).set("service", "forward", "\"nat\"");
        assert_eq!(text.as_str().matches("forward = \"nat\"").count(), 2);
        assert!(!text.as_str().contains("dsr"));
        assert!(
            text.as_str()
                .contains("[[service]]\nforward = \"nat\"\nname = \"b\"")
        );
    }

    #[test]
    fn a_value_is_read_as_it_stands() {
        let text = ConfigText::from("a = 1\n[x]\nb = \"2s\"  # why\n[x.y]\nc = 3\n");
        assert_eq!(text.get("", "a"), Some("1"));
        assert_eq!(text.get("x", "b"), Some("\"2s\""));
        assert_eq!(text.get("x", "c"), None);
    }

    #[test]
    fn a_table_that_is_missing_is_added() {
        let text = ConfigText::from(TEXT).set("metrics", "listen", "\"127.0.0.1:1\"");
        assert!(
            text.as_str()
                .ends_with("\n[metrics]\nlisten = \"127.0.0.1:1\"\n")
        );
    }

    #[test]
    fn a_key_of_the_top_stays_at_the_top() {
        let text = ConfigText::from(TEXT).set("", "seed", "\"00\"");
        assert!(text.as_str().starts_with("seed = \"00\"\ninterface"));
        let text = ConfigText::from(TEXT).set("", "interface", "\"eth1\"");
        assert!(text.as_str().starts_with("interface = \"eth1\"\n[api]"));
    }

    #[test]
    fn a_table_is_removed_with_its_keys_and_nothing_else() {
        let text = ConfigText::from(TEXT).without("service.check");
        assert_eq!(
            text.as_str(),
            TEXT.replace("[service.check]\ninterval = \"2s\"\n", "")
        );
    }
}
