//! The licences of the crates that are in a program: each asks to be named wherever it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Product;
use crate::build;
use crate::exec;

/// How files with a licence, or with what it asks to be said, are called.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// What cargo says of the workspace and all that it is built of.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Where it is from; nowhere if it is our own.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// `None` is what the program itself is linked with.
    kind: Option<String>,
}

/// The text for a product.
pub(super) fn collect(product: Product) -> Result<String> {
    let mut metadata = build::cargo();
    metadata.args(["metadata", "--locked", "--format-version", "1"]);
    metadata.args(["--filter-platform", &platform()?]);
    let json = exec::output(&mut metadata)?;
    let metadata: Metadata =
        serde_json::from_str(&json).context("cargo metadata has changed its form")?;
    let mut crates: Vec<&Package> = linked(&metadata, &product.crates())
        .into_iter()
        .filter(|package| package.source.is_some())
        .collect();
    crates.sort_by_key(|package| (&package.name, &package.version));
    let mut texts = BTreeMap::new();
    for package in &crates {
        for text in licences(&package.manifest_path)? {
            texts.entry(text).or_insert_with(Vec::new).push(*package);
        }
    }
    Ok(write(product, &crates, &texts))
}

/// What rustc calls this machine.
fn platform() -> Result<String> {
    let text = exec::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say what it builds for")
}

/// The packages that are linked into those named.
fn linked<'a>(metadata: &'a Metadata, roots: &[&str]) -> Vec<&'a Package> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let is_root =
        |package: &&Package| package.source.is_none() && roots.contains(&package.name.as_str());
    let mut waiting: Vec<&str> = metadata
        .packages
        .iter()
        .filter(is_root)
        .map(|package| package.id.as_str())
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let dependencies = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let is_linked = |it: &&Dependency| it.dep_kinds.iter().any(|kind| kind.kind.is_none());
        waiting.extend(dependencies.filter(is_linked).map(|it| it.pkg.as_str()));
    }
    seen.into_iter()
        .filter_map(|id| packages.get(id).copied())
        .collect()
}

/// The texts beside a manifest.
fn licences(manifest: &Path) -> Result<Vec<String>> {
    let directory = manifest.parent().unwrap_or(manifest);
    let mut texts = Vec::new();
    for name in super::names(directory)? {
        let path = directory.join(&name);
        let upper = name.to_uppercase();
        if NAMES.iter().any(|it| upper.starts_with(it)) && path.is_file() {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            texts.push(String::from_utf8_lossy(&bytes).trim().to_owned());
        }
    }
    Ok(texts)
}

fn write(product: Product, crates: &[&Package], texts: &BTreeMap<String, Vec<&Package>>) -> String {
    // Writing to a string cannot fail.
    let mut out = String::new();
    let name = product.name();
    let _ = writeln!(
        out,
        "{name} is built of these crates. Their licences follow, as they come with them.\n"
    );
    for package in crates {
        let licence = package.license.as_deref().unwrap_or("see its text");
        let _ = writeln!(out, "{} {}: {licence}", package.name, package.version);
    }
    for (text, packages) in texts {
        let names: Vec<_> = packages
            .iter()
            .map(|package| format!("{} {}", package.name, package.version))
            .collect();
        let _ = write!(out, "\n\n==== {}\n\n{text}\n", names.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `boat` is ours, `oar` is linked, `plane` builds it, `test` tests it.
    const JSON: &str = r#"{
        "packages": [
            {"id": "1", "name": "boat", "version": "1.0.0", "license": "MIT", "source": null, "manifest_path": "/a"},
            {"id": "2", "name": "oar", "version": "2.0.0", "license": "ISC", "source": "r", "manifest_path": "/b"},
            {"id": "3", "name": "plane", "version": "3.0.0", "license": null, "source": "r", "manifest_path": "/c"},
            {"id": "4", "name": "wood", "version": "4.0.0", "license": null, "source": "r", "manifest_path": "/d"}
        ],
        "resolve": {"nodes": [
            {"id": "1", "deps": [
                {"pkg": "2", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
                {"pkg": "3", "dep_kinds": [{"kind": "build"}]}
            ]},
            {"id": "2", "deps": [{"pkg": "4", "dep_kinds": [{"kind": null}]}]},
            {"id": "3", "deps": []},
            {"id": "4", "deps": [{"pkg": "2", "dep_kinds": [{"kind": null}]}]}
        ]}
    }"#;

    #[test]
    fn what_only_builds_or_tests_is_not_in_the_program() {
        let metadata: Metadata = serde_json::from_str(JSON).unwrap();
        let names: Vec<_> = linked(&metadata, &["boat"])
            .into_iter()
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(names, ["boat", "oar", "wood"]);
        assert!(linked(&metadata, &["oar"]).is_empty());
    }

    #[test]
    fn a_text_of_several_crates_is_there_once() {
        let metadata: Metadata = serde_json::from_str(JSON).unwrap();
        let crates: Vec<_> = metadata.packages.iter().skip(1).collect();
        let texts = BTreeMap::from([("Be kind.".to_owned(), crates.clone())]);
        let text = write(Product::Broker, &crates, &texts);
        assert!(text.contains("oar 2.0.0: ISC\n"), "{text}");
        assert!(text.contains("plane 3.0.0: see its text\n"), "{text}");
        assert!(text.contains("==== oar 2.0.0, plane 3.0.0, wood 4.0.0\n\nBe kind.\n"));
        assert_eq!(text.matches("Be kind.").count(), 1);
    }
}
