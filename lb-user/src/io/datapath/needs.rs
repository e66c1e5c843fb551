//! What the programs ask of a kernel, read from the object: nothing newer than Linux 5.15.

use std::collections::BTreeSet;

use super::OBJECT;

/// The helpers that the programs may call, by number and name, and the kernel that brought them.
const HELPERS: [(i32, &str, &str); 13] = [
    (1, "map_lookup_elem", "3.19"),
    (2, "map_update_elem", "3.19"),
    (3, "map_delete_elem", "3.19"),
    (5, "ktime_get_ns", "4.1"),
    (7, "get_prandom_u32", "4.1"),
    (12, "tail_call", "4.2"),
    (23, "redirect", "4.4"),
    (28, "csum_diff", "4.6"),
    (44, "xdp_adjust_head", "4.10"),
    (65, "xdp_adjust_tail", "4.18"),
    (131, "ringbuf_reserve", "5.8"),
    (132, "ringbuf_submit", "5.8"),
    (160, "ktime_get_coarse_ns", "5.11"),
];

/// The section of the object that holds all programs.
const PROGRAMS: &[u8] = b"xdp";

/// `BPF_JMP | BPF_CALL`, and the source register's value for a helper.
const CALL: u8 = 0x85;
const HELPER: u8 = 0;

/// `BPF_LD | BPF_DW | BPF_IMM`, which takes the room of two instructions.
const LOAD_WIDE: u8 = 0x18;

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    let mut word = [0; 8];
    word[..length].copy_from_slice(&bytes[at..at + length]);
    u64::from_le_bytes(word) as usize
}

/// The content of a section of a little-endian ELF64 object (System V ABI, gABI chapter 4).
fn section<'a>(object: &'a [u8], name: &[u8]) -> &'a [u8] {
    let (table, size) = (number(object, 0x28, 8), number(object, 0x3a, 2));
    let (count, names) = (number(object, 0x3c, 2), number(object, 0x3e, 2));
    let header = |index: usize| &object[table + index * size..][..size];
    let content = |header: &[u8]| {
        let (at, length) = (number(header, 0x18, 8), number(header, 0x20, 8));
        &object[at..at + length]
    };
    let names = content(header(names));
    let wanted = (0..count).map(header).find(|header| {
        let rest = &names[number(header, 0, 4)..];
        rest.strip_prefix(name).is_some_and(|rest| rest[0] == 0)
    });
    content(wanted.expect("the object has programs"))
}

/// The numbers of all helpers that are called.
fn called(programs: &[u8]) -> BTreeSet<i32> {
    let mut called = BTreeSet::new();
    let mut instructions = programs.chunks_exact(8);
    while let Some(&[operation, registers, _, _, a, b, c, d]) = instructions.next() {
        if operation == LOAD_WIDE {
            instructions.next();
        }
        if operation == CALL && registers >> 4 == HELPER {
            called.insert(i32::from_le_bytes([a, b, c, d]));
        }
    }
    called
}

#[test]
fn no_helper_is_newer_than_the_oldest_kernel() {
    if OBJECT.is_empty() {
        println!("skipped: built without the XDP programs");
        return;
    }
    let called = called(section(OBJECT, PROGRAMS));
    let known: BTreeSet<i32> = HELPERS.iter().map(|(number, ..)| *number).collect();
    let unknown: Vec<_> = called.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "helpers {unknown:?} are not in the list"
    );
    for (number, name, since) in HELPERS {
        println!(
            "bpf_{name} ({number}), since {since}: {}",
            called.contains(&number)
        );
    }
    assert!(called.contains(&1), "no program looks anything up");
}
