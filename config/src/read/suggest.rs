//! "did you mean".

/// Longer words are no typing errors; and comparing costs the product of the lengths.
const MAX_LEN: usize = 64;
/// So many candidates of a likely length are compared: who has declared more may have to find the word without help.
const MAX_COMPARED: usize = 256;

/// The candidate that `word` most likely was meant to be, if any is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_LEN {
        return None;
    }
    let word = plain(word);
    let length = word.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = plain(candidate);
            let other_length = other.chars().count();
            let longest = length.max(other_length);
            // No distance is less than the difference of the lengths.
            (length.abs_diff(other_length) <= longest.div_ceil(4)).then_some((other, longest, candidate))
        })
        .take(MAX_COMPARED)
        .filter_map(|(other, longest, candidate)| {
            let distance = strsim::osa_distance(&word, &other);
            let near = distance <= longest.div_ceil(4) && distance < longest;
            (near && distance < other.len()).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the choice of separator say nothing about what was meant.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_typing_errors_other_separators_and_other_case() {
        let keys = ["image", "init", "mem_limit", "memswap_limit", "environment", "volumes"];
        for (word, meant) in [
            ("imge", Some("image")),
            ("iamge", Some("image")),
            ("mem-limit", Some("mem_limit")),
            ("memLimit", Some("mem_limit")),
            ("enviroment", Some("environment")),
            ("volume", Some("volumes")),
            ("x", None),
            ("", None),
            ("wholly_unrelated", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
        assert_eq!(nearest(&"i".repeat(100_000), keys), None);
    }
}
