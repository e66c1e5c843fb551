//! XDP programs of others, by what the kernel calls them.

use aya::programs::loaded_programs;

/// The name of a loaded program, as far as the kernel keeps it (15 bytes); `None` if it does not tell
/// this process, or there is none.
#[must_use]
pub fn program_name(id: u32) -> Option<String> {
    let programs = loaded_programs().filter_map(Result::ok);
    let mut named = programs.filter(|program| program.id() == id);
    named.next()?.name_as_str().map(str::to_owned)
}
