//! Steps → what the database is asked to write, and the search for a row that it refuses.

use super::database::Session;
use super::failure::Failure;
use super::fold::{Row, Step, Unfit};
use super::table::{Table, Target};

/// How far a row that the database refuses is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Not at all: the transaction fails.
    Plain,
    /// Statements that fail are taken back, and their rows written by halves.
    Halving,
    /// The same, with constraints that would else be looked at when the transaction ends.
    Immediate,
}

/// Where rows go: the target, and the table as it is.
type Place<'a> = (&'a Target, &'a Table);

/// Writes all steps. `Ok(Err)`: the row that the database refuses.
pub(super) async fn apply<S: Session>(
    session: &mut S,
    place: Place<'_>,
    steps: &[Step],
    care: Care,
) -> Result<Result<(), Unfit>, Failure> {
    let (target, table) = place;
    if care == Care::Immediate {
        session.check_at_once().await?;
    }
    for step in steps {
        match step {
            Step::Truncate { sequence, event } => match session.truncate(target, *sequence).await {
                Err(Failure::Row(why)) if care != Care::Plain => return Ok(Err((*event, why))),
                done => done?,
            },
            Step::Rows(columns, rows) => {
                let columns = columns.as_deref();
                if care == Care::Plain {
                    session.write(target, table, columns, rows).await?;
                } else if let Err(unfit) = by_halves(session, place, columns, rows).await? {
                    return Ok(Err(unfit));
                }
            }
        }
    }
    Ok(Ok(()))
}

/// Writes rows that the database may refuse together though it takes each, or of which it may refuse one.
async fn by_halves<S: Session>(
    session: &mut S,
    (target, table): Place<'_>,
    columns: Option<&[String]>,
    rows: &[Row],
) -> Result<Result<(), Unfit>, Failure> {
    // Parts that are still to be written, the next one last.
    let mut left = vec![rows];
    while let Some(part) = left.pop() {
        session.run("savepoint part").await?;
        match session.write(target, table, columns, part).await {
            Ok(()) => session.run("release savepoint part").await?,
            Err(Failure::Row(why)) => {
                session.run("rollback to savepoint part").await?;
                if let [row] = part {
                    return Ok(Err((row.event, why)));
                }
                let (first, second) = part.split_at(part.len() / 2);
                left.extend([second, first]);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(Ok(()))
}
