//! The table of statements in `docs/mqtt.md`: is it whole, and are its tests there?

use std::{collections::BTreeSet, fs, path::Path};

const DOCUMENT: &str = include_str!("../../../../docs/mqtt.md");

/// Sections of MQTT 5 with the number of statements in each (its appendix B).
const V5: &[(&str, u32)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// The same of MQTT 3.1.1.
const V311: &[(&str, u32)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// The rows of one version: number and proof.
fn rows(version: &str) -> Vec<(&'static str, &'static str)> {
    let heading = format!("\n### {version}\n");
    let (_before, section) = DOCUMENT.split_once(&heading).unwrap();
    let section = section.split("\n#").next().unwrap();
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
        let [number, _says, proof] = cells[..] else {
            panic!("not three cells: {line}")
        };
        rows.push((number.trim(), proof.trim()));
    }
    // The first is the heading of the table.
    rows.split_off(1)
}

fn numbers(sections: &[(&str, u32)]) -> Vec<String> {
    let mut numbers = Vec::new();
    for (section, count) in sections {
        numbers.extend((1..=*count).map(|number| format!("{section}-{number}")));
    }
    // The one number that its specification left out.
    numbers.retain(|number| number != "2.2.1-1");
    numbers
}

/// The names of all functions that are tests.
fn tests(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            for item in source.split("test]\n").skip(1) {
                let after = item.split_once("fn ").unwrap().1;
                found.insert(after.split('(').next().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn each_statement_of_the_specifications_has_a_row() {
    for (version, sections) in [("MQTT 5", V5), ("MQTT 3.1.1", V311)] {
        let rows: Vec<_> = rows(version).iter().map(|row| row.0.to_owned()).collect();
        assert_eq!(rows, numbers(sections), "{version}");
    }
}

#[test]
fn each_proof_is_a_test_or_a_reason() {
    let mut known = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    tests(&sources, &mut known);
    for (number, proof) in ["MQTT 5", "MQTT 3.1.1"].into_iter().flat_map(rows) {
        assert!(!proof.is_empty(), "{number} has no proof");
        for name in proof.split('`').skip(1).step_by(2) {
            assert!(known.contains(name), "{number}: there is no test {name}");
        }
    }
}
