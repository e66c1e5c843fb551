//! Rates as a screen of text.

use std::collections::BTreeMap;

use super::rates::{Rates, Row};
use crate::{cli::status::sessions_cell, control::Status};

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    #[default]
    Name,
    Packets,
    Bits,
    New,
    Sessions,
    Resets,
    Drops,
}

impl Sort {
    /// The order that a key stands for.
    pub(super) const fn of_key(key: u8) -> Option<Self> {
        Some(match key {
            b'a' => Self::Name,
            b'p' => Self::Packets,
            b'b' => Self::Bits,
            b'n' => Self::New,
            b's' => Self::Sessions,
            b'r' => Self::Resets,
            b'd' => Self::Drops,
            _ => return None,
        })
    }

    /// The greatest come first; names in their order.
    fn value(self, row: &Row) -> f64 {
        match self {
            Self::Name => 0.0,
            Self::Packets => row.packets_per_second,
            Self::Bits => row.bits_per_second,
            Self::New => row.new_per_second,
            Self::Sessions => row.sessions.count as f64,
            Self::Resets => row.resets_per_second,
            Self::Drops => row.drops_per_second,
        }
    }

    fn order(self, a: &Row, b: &Row) -> std::cmp::Ordering {
        let by_value = self.value(b).total_cmp(&self.value(a));
        by_value.then_with(|| a.name.cmp(&b.name))
    }
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

const KEYS: &str =
    "q quit | order: a name, p packets, b bits, n new, s sessions, r resets, d drops";

/// The whole screen: no line is longer than the terminal is wide, nor are there more than it has.
pub(super) fn render(status: &Status, rates: &Rates, sort: Sort, size: Size) -> String {
    let mut lines = vec![headline(status, rates), String::new(), head()];
    let mut services: Vec<_> = rates.services.iter().collect();
    services.sort_by(|a, b| sort.order(&a.row, &b.row));
    for service in services {
        lines.push(line(&service.row, ""));
        let mut backends: Vec<_> = service.backends.iter().collect();
        backends.sort_by(|a, b| sort.order(a, b));
        lines.extend(backends.into_iter().map(|backend| line(backend, "  ")));
        if !service.mqtt.is_empty() {
            lines.push(format!("  clients sent a second: {}", list(&service.mqtt)));
        }
    }
    if !rates.drops.is_empty() {
        lines.push(String::new());
        lines.push(format!("dropped a second: {}", list(&rates.drops)));
    }
    // The keys' line and an empty one stay in sight.
    let room = size.rows.saturating_sub(2).max(1);
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(format!("... {hidden} more lines"));
    }
    lines.extend([String::new(), KEYS.to_owned()]);
    let cut = |line: &String| line.chars().take(size.columns).collect::<String>();
    lines.iter().map(cut).collect::<Vec<_>>().join("\n")
}

fn headline(status: &Status, rates: &Rates) -> String {
    let sum = |of: fn(&Row) -> f64| {
        let services = rates.services.iter();
        scaled(services.map(|service| of(&service.row)).sum())
    };
    let (packets, bits) = (
        sum(|row| row.packets_per_second),
        sum(|row| row.bits_per_second),
    );
    let dropped = scaled(rates.drops.values().sum());
    let (version, interface) = (&status.version, &status.interface.name);
    format!(
        "tidegate {version} on {interface}: {packets} packets/s, {bits} bit/s, {dropped} dropped/s"
    )
}

fn head() -> String {
    cells("SERVICE, BACKEND", "STATE", &HEAD)
}

const HEAD: [&str; 6] = ["PKT/S", "BIT/S", "NEW/S", "SESSIONS", "RST/S", "DROP/S"];

fn line(row: &Row, indent: &str) -> String {
    let numbers = [
        scaled(row.packets_per_second),
        scaled(row.bits_per_second),
        scaled(row.new_per_second),
        sessions_cell(row.sessions),
        scaled(row.resets_per_second),
        scaled(row.drops_per_second),
    ];
    cells(&format!("{indent}{}", row.name), &row.state, &numbers)
}

/// 80 columns together.
fn cells<T: AsRef<str>>(name: &str, state: &str, numbers: &[T; 6]) -> String {
    let name: String = name.chars().take(22).collect();
    let [packets, bits, new, sessions, resets, drops] = numbers.each_ref().map(AsRef::as_ref);
    format!(
        "{name:<22} {state:<9} {packets:>7} {bits:>7} {new:>7} {sessions:>9} {resets:>6} {drops:>6}"
    )
}

fn list(rates: &BTreeMap<String, f64>) -> String {
    let entries = rates
        .iter()
        .map(|(name, rate)| format!("{name} {}", scaled(*rate)));
    entries.collect::<Vec<_>>().join(", ")
}

/// A number in at most six characters.
fn scaled(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut scaled, mut unit) = (number, UNITS[0]);
    for next in &UNITS[1..] {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    let digits = usize::from(scaled < 99.95 && (unit != UNITS[0] || scaled.fract() > 0.0));
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{KEYS, Size, Sort, render, scaled};
    use crate::{
        cli::top::rates::Rates,
        control::{Status, example},
    };

    const TERMINAL: Size = Size {
        columns: 80,
        rows: 24,
    };

    /// Two services, the second with more of everything.
    fn two() -> (Status, Status) {
        let mut before = example::status();
        let mut second = before.services[0].clone();
        second.name = "zebra".to_owned();
        before.services.push(second);
        let mut now = before.clone();
        for (at, service) in now.services.iter_mut().enumerate() {
            let more = (at as u64 + 1) * 1_000_000;
            service.traffic.packets += more;
            service.traffic.bytes += more * 100;
            service.traffic.new_connections += more;
            service.traffic.resets += more;
            service.dropped += more;
            service.sessions.count += more;
        }
        now.verdicts.insert("drop_not_mqtt".to_owned(), 30);
        (before, now)
    }

    fn screen(sort: Sort, size: Size) -> String {
        let (before, now) = two();
        let rates = Rates::between(&before, &now, Duration::from_secs(10));
        render(&now, &rates, sort, size)
    }

    #[test]
    fn the_screen_fits_eighty_columns_and_shows_all() {
        let text = screen(Sort::Name, TERMINAL);
        let wide = Size {
            columns: 200,
            ..TERMINAL
        };
        assert_eq!(text, screen(Sort::Name, wide), "nothing is cut off");
        for part in ["mqtt", "zebra", "broker1", "100k", "drop_not_mqtt 3", KEYS] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn every_order_puts_the_greatest_first() {
        let first = |sort| {
            let text = screen(sort, TERMINAL);
            let line = text.lines().nth(3).unwrap().to_owned();
            line.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(first(Sort::Name), "mqtt");
        for key in b"pbnsrd" {
            let sort = Sort::of_key(*key).unwrap();
            assert_eq!(first(sort), "zebra", "{sort:?}");
        }
        assert_eq!(
            (Sort::of_key(b'a'), Sort::of_key(b'x')),
            (Some(Sort::Name), None)
        );
    }

    #[test]
    fn a_low_terminal_keeps_the_head_and_the_keys() {
        let low = Size {
            columns: 80,
            rows: 7,
        };
        let text = screen(Sort::Name, low);
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(
            text.starts_with("tidegate ") && text.ends_with(KEYS),
            "{text}"
        );
        assert!(text.contains("more lines"), "{text}");
    }

    #[test]
    fn numbers_stay_short() {
        let texts = [
            0.0, 0.5, 7.0, 99.96, 999.0, 1234.0, 99_960.0, 5e6, 2.5e9, 9e14,
        ]
        .map(scaled);
        assert_eq!(
            texts,
            [
                "0", "0.5", "7", "100", "999", "1.2k", "100k", "5.0M", "2.5G", "900T"
            ]
        );
    }
}
