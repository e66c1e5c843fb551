//! Empty: lets cargo track the crate as a library.
#![no_std]
