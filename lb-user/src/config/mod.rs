//! The configuration file: read, checked against every rule, and turned into [`model::Config`].

pub mod model;
