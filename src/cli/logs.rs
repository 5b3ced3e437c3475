//! Log lines: text for people on a terminal, JSON for machines elsewhere. Always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoLocal;

use super::LogFormat;

/// Starts logging. `filter` as in `--log`.
pub fn init(format: Option<LogFormat>, filter: &str) -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| format!("--log {filter:?} is no log filter: {e} (try info, or info,tributary_connector=debug)"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(super::output::LogWriter);
    let result = match format {
        LogFormat::Text => {
            let time = ChronoLocal::new("%H:%M:%S%.3f".into());
            builder.with_timer(time).with_target(false).with_ansi(terminal).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    result.map_err(|e| format!("cannot start logging: {e}"))
}
