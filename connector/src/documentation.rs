//! Tables of the documentation that are made of the code.

/// Holds the table of a page, which begins with `head`, against that of the code; with `UPDATE_DOCS` it is written anew.
pub(crate) fn has_table(path: &str, head: &str, table: &str) {
    let page = std::fs::read_to_string(path).expect("the page");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let begin = page.find(head).expect("a table");
        let end = page[begin..].find("\n\n").map_or(page.len(), |n| begin + n + 1);
        std::fs::write(path, format!("{}{table}{}", &page[..begin], &page[end..])).expect("written");
    } else {
        assert!(page.contains(table), "run this test with UPDATE_DOCS=1; the table is now\n{table}");
    }
}
