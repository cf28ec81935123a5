//! What somebody may have meant.

/// The one of `known` that is like `text`, if any is.
pub(crate) fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|known| (distance(text, known), *known)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, known)| *distance <= 1 + known.len() / 4).map(|(_, known)| known)
}

/// How many letters must be changed, left out or added (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut last = at + 1;
        let mut next = vec![last];
        for (column, another) in other.chars().enumerate() {
            let [above_left, above] = [column, column + 1].map(|at| row.get(at).copied().unwrap_or_default());
            last = (last + 1).min(above + 1).min(above_left + usize::from(letter != another));
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (one, other, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("a", "a", 0)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn only_what_is_near_is_named() {
        let known = ["providers", "write", "timeout"];
        assert_eq!(nearest("provider", &known), Some("providers"));
        assert_eq!(nearest("timout", &known), Some("timeout"));
        assert_eq!(nearest("colour", &known), None);
    }
}
