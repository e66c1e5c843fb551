#![no_std]
//! lb-common
