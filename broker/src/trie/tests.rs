use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// The specification, level by level, with nothing clever in it.
fn naive_match(filter: &str, topic: &str) -> bool {
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    if topic[0].starts_with('$') && (filter[0] == "+" || filter[0] == "#") {
        return false;
    }
    for (index, level) in filter.iter().enumerate() {
        match *level {
            "#" => return true,
            "+" if index < topic.len() => {}
            level if topic.get(index) == Some(&level) => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

fn matches(trie: &Trie<u32, ()>, topic: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    trie.for_each_match(topic, |key, ()| {
        assert!(found.insert(*key), "visited twice")
    });
    found
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof!["[abä]?", Just("$SYS".to_owned()), Just(String::new())]
}

fn topic() -> impl Strategy<Value = String> {
    vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let wild = prop_oneof![3 => level(), 2 => Just("+".to_owned())];
    (vec(wild, 0..4), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("empty", |f| !f.is_empty())
}

proptest! {
    #[test]
    fn finds_what_the_naive_matcher_finds(filters in vec(filter(), 0..20), topic in topic()) {
        let mut trie = Trie::default();
        for (key, filter) in (0..).zip(&filters) {
            trie.insert(filter, key, ());
        }
        let expected: BTreeSet<u32> =
            (0..).zip(&filters).filter(|(_, f)| naive_match(f, &topic)).map(|(k, _)| k).collect();
        prop_assert_eq!(matches(&trie, &topic), expected);
    }

    #[test]
    fn removal_undoes_insertion(
        kept in vec(filter(), 0..10),
        removed in vec(filter(), 0..10),
        topic in topic(),
    ) {
        let mut trie = Trie::default();
        for (key, filter) in (0..).zip(&kept) {
            trie.insert(filter, key, ());
        }
        let expected = matches(&trie, &topic);
        for (key, filter) in (100..).zip(&removed) {
            trie.insert(filter, key, ());
        }
        for (key, filter) in (100..).zip(&removed) {
            prop_assert_ne!(trie.remove(filter, &key), Removed::Nothing);
        }
        prop_assert_eq!(matches(&trie, &topic), expected);
        for (key, filter) in (0..).zip(&kept) {
            trie.remove(filter, &key);
        }
        prop_assert!(trie.root.is_empty());
    }
}

#[test]
fn first_and_last_subscriber_of_a_filter_are_told() {
    let mut trie = Trie::default();
    assert_eq!(trie.insert("a/+/#", 1, 0), Inserted::NewFilter);
    assert_eq!(trie.insert("a/+/#", 2, 0), Inserted::NewSubscriber);
    assert_eq!(trie.insert("a/+/#", 2, 1), Inserted::Replaced);
    assert_eq!(trie.insert("a/+", 2, 1), Inserted::NewFilter);
    let mut found = Vec::new();
    trie.for_each_match("a/b/c", |key, value| found.push((*key, *value)));
    assert_eq!(found, [(1, 0), (2, 1)]);
    assert_eq!(trie.remove("a/+/#", &3), Removed::Nothing);
    assert_eq!(trie.remove("a/+/#", &1), Removed::Subscriber);
    assert_eq!(trie.remove("a/+/#", &2), Removed::LastSubscriber);
    assert_eq!(trie.remove("a/+", &2), Removed::LastSubscriber);
    assert!(trie.root.is_empty());
}

#[test]
fn wildcards_do_not_match_dollar_topics_at_the_first_level() {
    let mut trie = Trie::default();
    for (key, filter) in (0..).zip(["#", "+/x", "$SYS/#", "$SYS/+", "a/$SYS"]) {
        trie.insert(filter, key, ());
    }
    assert_eq!(matches(&trie, "$SYS/x"), BTreeSet::from([2, 3]));
    assert_eq!(matches(&trie, "a/$SYS"), BTreeSet::from([0, 4]));
}

#[test]
fn empty_levels_are_levels() {
    let mut trie = Trie::default();
    for (key, filter) in (0..).zip(["//", "+/+/+", "/#", "//#", "/", "+"]) {
        trie.insert(filter, key, ());
    }
    assert_eq!(matches(&trie, "//"), BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(matches(&trie, "/"), BTreeSet::from([2, 3, 4]));
}
