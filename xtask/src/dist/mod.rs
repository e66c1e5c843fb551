//! What users install, made from the source tree.

pub mod manual;
