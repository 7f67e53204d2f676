//! Columns as kubectl prints them: left-aligned, three spaces apart.

/// Lays out rows under a header. Every row has as many cells as the header.
pub(crate) fn layout(header: &[String], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("   ").trim_end().to_owned()
    };
    let header: Vec<String> = header.iter().map(|cell| cell.to_uppercase()).collect();
    std::iter::once(line(&header))
        .chain(rows.iter().map(|row| line(row)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["web".to_owned(), "1/1".to_owned()],
            vec!["a-longer-one".to_owned(), "0/1".to_owned()],
        ];
        let lines = layout(&["Name".to_owned(), "Ready".to_owned()], &rows);
        assert_eq!(
            lines,
            [
                "NAME           READY",
                "web            1/1",
                "a-longer-one   0/1"
            ]
        );
    }
}
