//! Each of several once, in the order in which they came.

/// The items without those that came before. For the few names of a run: every one is held against all that are kept.
pub fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut out: Vec<T> = Vec::new();
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::distinct;

    #[test]
    fn each_is_there_once_at_its_first_place() {
        assert_eq!(distinct(["b", "a", "b", "c", "a"]), ["b", "a", "c"]);
        assert_eq!(distinct(Vec::<u8>::new()), [0; 0]);
    }
}
