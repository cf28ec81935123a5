//! Lists in pages, as AWS KMS's `Limit`, `Marker`, `NextMarker` and `Truncated`.

use super::key::validation;
use crate::error::{Error, Result};

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    limit: Option<u16>,
    marker: Option<String>,
}

impl PageRequest {
    /// At most so many items, as AWS has it: 1 to 1,000 keys, versions or rotations (default: 100), 1 to 100 aliases or
    /// grants, 1 to 50 tags (default: 50).
    #[must_use]
    pub fn limit(mut self, limit: u16) -> Self {
        self.limit = Some(limit);
        self
    }

    /// What comes after the page that had this [`next_marker`](Page::next_marker). Default: the list's beginning.
    #[must_use]
    pub fn after(mut self, marker: impl Into<String>) -> Self {
        self.marker = Some(marker.into());
        self
    }

    /// The page of a list in the order of its items' names: what comes after the marker, whether or not the item
    /// that it names is still there.
    ///
    /// # Errors
    /// ValidationException for the limit, InvalidMarkerException.
    pub(super) fn of<T, N: Ord>(
        &self,
        limits: PageLimits,
        items: Vec<T>,
        name: impl Fn(&T) -> N,
        read: impl Fn(&str) -> Option<N>,
        write: impl Fn(&N) -> String,
    ) -> Result<Page<T>> {
        let limit = usize::from(self.checked_limit(limits)?);
        let after = match &self.marker {
            None => None,
            Some(marker) => Some(read(marker).ok_or_else(invalid_marker)?),
        };
        let mut rest = items.into_iter().filter(|item| after.as_ref().is_none_or(|after| name(item) > *after));
        let items: Vec<T> = rest.by_ref().take(limit).collect();
        let truncated = rest.next().is_some();
        let next_marker = items.last().filter(|_| truncated).map(|item| write(&name(item)));
        Ok(Page { items, next_marker })
    }

    fn checked_limit(&self, limits: PageLimits) -> Result<u16> {
        match self.limit.unwrap_or(limits.default) {
            limit if (1..=limits.most).contains(&limit) => Ok(limit),
            limit => Err(validation(format!("a page of this list has 1 to {} items, not {limit}", limits.most))),
        }
    }
}

/// How long the pages of a list are.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageLimits {
    default: u16,
    most: u16,
}

impl PageLimits {
    pub(super) const KEYS: Self = Self { default: 100, most: 1_000 };
    pub(super) const ROTATIONS: Self = Self { default: 100, most: 1_000 };
    pub(super) const ALIASES: Self = Self { default: 50, most: 100 };
    pub(super) const GRANTS: Self = Self { default: 50, most: 100 };
    pub(super) const TAGS: Self = Self { default: 50, most: 50 };
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins, for [`PageRequest::after`]; `None` if this is the last. What is in it is nobody's
    /// business.
    pub next_marker: Option<String>,
}

impl<T> Page<T> {
    /// Whether there is more.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.next_marker.is_some()
    }

    pub(super) fn try_map<U>(self, item: impl FnMut(T) -> Result<U>) -> Result<Page<U>> {
        let items = self.items.into_iter().map(item).collect::<Result<_>>()?;
        Ok(Page { items, next_marker: self.next_marker })
    }
}

fn invalid_marker() -> Error {
    Error::invalid_input("this is no marker of such a list")
        .with_code("InvalidMarkerException")
        .with_advice("give the `next_marker` of the page before, as it came")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(request: &PageRequest) -> Result<Page<u32>> {
        request.of(PageLimits::KEYS, (1..=250).collect(), |item| *item, |text| text.parse().ok(), u32::to_string)
    }

    #[test]
    fn pages_together_are_the_list() {
        for limit in [1, 7, 100, 250, 1_000] {
            let (mut all, mut request) = (Vec::new(), PageRequest::default().limit(limit));
            loop {
                let page = page(&request).unwrap();
                assert_eq!(page.truncated(), page.next_marker.is_some());
                assert!(page.items.len() == usize::from(limit) || !page.truncated());
                all.extend(page.items);
                let Some(marker) = page.next_marker else { break };
                request = request.after(marker);
            }
            assert_eq!(all, (1..=250).collect::<Vec<_>>(), "by {limit}");
        }
        assert_eq!(page(&PageRequest::default()).unwrap().items.len(), 100);
    }

    #[test]
    fn what_no_page_has_is_refused() {
        for limit in [0, 1_001] {
            let error = page(&PageRequest::default().limit(limit)).unwrap_err();
            assert_eq!(error.code(), Some("ValidationException"));
        }
        let error = page(&PageRequest::default().after("x")).unwrap_err();
        assert_eq!(error.code(), Some("InvalidMarkerException"));
        assert!(page(&PageRequest::default().after("300")).unwrap().items.is_empty());
    }
}
