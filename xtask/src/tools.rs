//! Running cargo from within cargo.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use tokio::process::Command;

/// What checks compile beside the usual: functions that are WebAssembly components. Its crates have the same features without it
/// (`wasm/Cargo.toml`), so little is compiled twice.
pub(crate) const WASM: &str = "tributary/wasm";

/// The cargo that runs this program, in the repository's folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).kill_on_drop(true);
    // What cargo told this program about its own package would mislead the inner cargo's build scripts.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            command.env_remove(&name);
        }
    }
    command
}

/// The repository's folder.
pub(crate) fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Whether this is a run of continuous integration, which may skip nothing.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// A child's exit code as ours; one that a signal ended counts as a failure.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target` in the repository.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}
