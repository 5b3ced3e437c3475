//! The command `tributary`, without functions and streams of a user.

use std::process::ExitCode;

use tributary::functions::Functions;

// Many threads build documents, and each of the system's arenas would keep what its busiest moment needed: three times the memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tributary::cli(Functions::new())
}
