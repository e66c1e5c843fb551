//! Topic filters as a tree of levels: who wants a message that was published to a topic?
//!
//! One kind of tree serves twice: each shard holds its sessions' subscriptions, and the node holds
//! which shards have any (see [`crate::routes`]). Filters and topics are validated by the callers,
//! which also bounds the depth of the recursion ([`crate::topic::MAX_LEVELS`]).

use std::collections::{BTreeMap, HashMap};

use crate::topic::{self, split_level};

/// Filters with the subscribers `K` of each, and what `V` each asked for.
#[derive(Debug)]
pub struct Trie<K, V> {
    root: Node<K, V>,
}

#[derive(Debug)]
struct Node<K, V> {
    /// Literal levels below this one.
    children: HashMap<Box<str>, Self>,
    /// The level `+` below this one.
    any: Option<Box<Self>>,
    /// Subscribers of the filter that ends here.
    here: BTreeMap<K, V>,
    /// Subscribers of the filter that goes on with `#`, which includes this level (4.7.1.2).
    all: BTreeMap<K, V>,
}

/// What an insertion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Nobody had this filter.
    NewFilter,
    /// Others had this filter.
    NewSubscriber,
    /// The subscriber had this filter; its value is replaced.
    Replaced,
}

/// What a removal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The subscriber was the filter's last.
    LastSubscriber,
    /// Others still have this filter.
    Subscriber,
    /// The subscriber did not have this filter.
    Nothing,
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Self {
            root: Node::default(),
        }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self {
            children: HashMap::new(),
            any: None,
            here: BTreeMap::new(),
            all: BTreeMap::new(),
        }
    }
}

impl<K: Ord, V> Trie<K, V> {
    /// Adds or replaces one subscription.
    pub fn insert(&mut self, filter: &str, key: K, value: V) -> Inserted {
        let mut node = &mut self.root;
        let mut levels = filter.split('/').peekable();
        let subscribers = loop {
            match levels.next() {
                None => break &mut node.here,
                Some("#") if levels.peek().is_none() => break &mut node.all,
                Some("+") => node = node.any.get_or_insert_default(),
                Some(level) => {
                    if !node.children.contains_key(level) {
                        node.children.insert(level.into(), Node::default());
                    }
                    let Some(child) = node.children.get_mut(level) else {
                        return Inserted::Replaced;
                    };
                    node = child;
                }
            }
        };
        let was_empty = subscribers.is_empty();
        match subscribers.insert(key, value) {
            Some(_replaced) => Inserted::Replaced,
            None if was_empty => Inserted::NewFilter,
            None => Inserted::NewSubscriber,
        }
    }

    /// Takes one subscription away, and the branches that nothing needs any more.
    pub fn remove(&mut self, filter: &str, key: &K) -> Removed {
        self.root.remove(Some(filter), key)
    }

    /// Calls `visit` once for each subscription whose filter matches the topic name.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a K, &'a V)) {
        let hidden = topic::hides_from_wildcards(topic);
        self.root.visit(Some(topic), hidden, &mut |subscribers| {
            for (key, value) in subscribers {
                visit(key, value);
            }
        });
    }

    /// How many branches there are, with the root.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        self.root.nodes()
    }
}

impl<K: Ord, V> Node<K, V> {
    #[cfg(test)]
    fn nodes(&self) -> usize {
        let below = self.children.values().chain(self.any.as_deref());
        1 + below.map(Self::nodes).sum::<usize>()
    }

    fn is_empty(&self) -> bool {
        let Self {
            children,
            any,
            here,
            all,
        } = self;
        children.is_empty() && any.is_none() && here.is_empty() && all.is_empty()
    }

    fn remove(&mut self, rest: Option<&str>, key: &K) -> Removed {
        let Some(rest) = rest else {
            return remove_from(&mut self.here, key);
        };
        let (level, below) = split_level(rest);
        match level {
            "#" if below.is_none() => remove_from(&mut self.all, key),
            "+" => {
                let Some(child) = self.any.as_deref_mut() else {
                    return Removed::Nothing;
                };
                let removed = child.remove(below, key);
                if child.is_empty() {
                    self.any = None;
                }
                removed
            }
            level => {
                let Some(child) = self.children.get_mut(level) else {
                    return Removed::Nothing;
                };
                let removed = child.remove(below, key);
                if child.is_empty() {
                    self.children.remove(level);
                }
                // A busy level that empties would keep its widest size for ever.
                if self.children.capacity() > 4 * (self.children.len() + 4) {
                    self.children.shrink_to_fit();
                }
                removed
            }
        }
    }

    /// `rest` is what follows this node's level; `hidden` is set at the first level of `$` topics.
    fn visit<'a>(
        &'a self,
        rest: Option<&str>,
        hidden: bool,
        visit: &mut impl FnMut(&'a BTreeMap<K, V>),
    ) {
        if !self.all.is_empty() && !hidden {
            visit(&self.all);
        }
        let Some(rest) = rest else {
            if !self.here.is_empty() {
                visit(&self.here);
            }
            return;
        };
        let (level, below) = split_level(rest);
        if let Some(child) = self.children.get(level) {
            child.visit(below, false, visit);
        }
        if let Some(child) = &self.any
            && !hidden
        {
            child.visit(below, false, visit);
        }
    }
}

fn remove_from<K: Ord, V>(subscribers: &mut BTreeMap<K, V>, key: &K) -> Removed {
    match subscribers.remove(key) {
        None => Removed::Nothing,
        Some(_value) if subscribers.is_empty() => Removed::LastSubscriber,
        Some(_value) => Removed::Subscriber,
    }
}

#[cfg(test)]
mod tests;
