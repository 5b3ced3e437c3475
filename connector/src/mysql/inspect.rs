//! Looks at server and tables without touching anything.

use tributary_event::debezium::DecimalMode;
use tributary_event::{ColumnType, JsonType, TableName};

use super::grants;
use super::prepare::{facts, read_tables, suffice};
use super::tables;
use super::tables::cascades::unlogged;
use super::wire::endpoint::endpoints;
use super::wire::session::Session;
use crate::dependent::Dependent;
use crate::dependent::carried::AsId;
use crate::error::ConnectorError;
use crate::settings::{MySqlSettings, TimePrecision};

/// Whether the server fits, the user may read its log, and the tables suffice. Makes nothing. The answer is what people should know though nothing
/// is refused for it.
///
/// # Errors
/// What is wrong, with its remedy.
pub async fn inspect(settings: &MySqlSettings, dependent: &dyn Dependent) -> Result<Vec<String>, ConnectorError> {
    let mut session = Session::open(&settings.url).await?;
    let facts = facts(&mut session).await?;
    grants::suffice(&mut session, &facts, settings).await?;
    let tables = read_tables(&mut session, settings).await?;
    suffice(&tables, settings, &facts, dependent)?;
    notes(&mut session, settings).await
}

/// What people should know though nothing is refused for it.
pub(super) async fn notes(session: &mut Session, settings: &MySqlSettings) -> Result<Vec<String>, ConnectorError> {
    let mut notes = unlogged(session, &settings.tables).await?;
    notes.extend(lacks_queries(session, settings).await?);
    notes.extend(grants::lacks(session, endpoints(&settings.url)?.len() > 1).await?);
    Ok(notes)
}

/// That statements are asked for, and the server does not keep them in its log.
async fn lacks_queries(session: &mut Session, settings: &MySqlSettings) -> Result<Option<String>, ConnectorError> {
    if !settings.query {
        return Ok(None);
    }
    let (variable, remedy) = match session.is_mariadb {
        true => (
            "binlog_annotate_row_events",
            "SET GLOBAL binlog_annotate_row_events = ON; keep it in the server's configuration; sessions keep theirs until they end",
        ),
        false => (
            "binlog_rows_query_log_events",
            "SET PERSIST binlog_rows_query_log_events = ON; sessions keep theirs until they end",
        ),
    };
    let is_on: Option<i64> =
        session.one("reading the server's settings", &format!("select @@global.{variable}")).await?;
    Ok((is_on == Some(0)).then(|| {
        format!(
            "query is on, and {variable} is OFF, so events have no statement, but for those of sessions that have set it themselves; run: {remedy}"
        )
    }))
}

/// The columns that events of the listed tables have. A table that does not exist is left out.
///
/// # Errors
/// The server does not answer, or lets us not in.
pub async fn column_types(
    settings: &MySqlSettings,
    decimals: DecimalMode,
) -> Result<Vec<(TableName, Vec<ColumnType>)>, ConnectorError> {
    let mut session = Session::open(&settings.url).await?;
    let whole_rows = facts(&mut session).await?.whole_rows;
    let iso = settings.values.times == TimePrecision::Iso;
    let tables = tables::read(&mut session, &settings.tables).await?;
    Ok(tables
        .into_iter()
        .map(|(table, shape)| {
            let column = |(at, column): (usize, &tables::ColumnShape)| ColumnType {
                name: column.name.clone(),
                json: json_type(&column.described.type_name, &column.type_name, iso, decimals),
                is_nullable: column.nullable,
                may_be_left_out: !whole_rows && !shape.key.contains(&at),
                is_key: shape.key.contains(&at),
            };
            (table, shape.columns.iter().enumerate().map(column).collect())
        })
        .collect())
}

fn json_type(kind: &str, type_name: &str, iso: bool, decimals: DecimalMode) -> JsonType {
    match kind {
        // Above 63 bits it is no integer of programs.
        "bigint" if type_name.contains("unsigned") => JsonType::Number,
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => JsonType::Integer,
        "float" | "double" => JsonType::Number,
        "decimal" if decimals == DecimalMode::Double => JsonType::Number,
        "bit" if type_name == "bit(1)" => JsonType::Boolean,
        "time" if !iso => JsonType::Integer,
        // Text where they are no date.
        "date" | "datetime" if !iso => JsonType::Any,
        "vector" => JsonType::List,
        kind if is_geometry(kind) => JsonType::Object,
        _ => JsonType::Text,
    }
}

fn is_geometry(kind: &str) -> bool {
    let described = super::values::Described { type_name: kind.to_owned(), ..Default::default() };
    matches!(tables::as_id(&described), AsId::Never("it is an object in events"))
        && (kind.contains("geom") || kind.contains("point") || kind.contains("polygon") || kind.contains("linestring"))
}
