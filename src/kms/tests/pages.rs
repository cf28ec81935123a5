//! Lists in pages: grants, those that somebody may retire, versions; their limits and markers.

use super::{Place, block_on};
use crate::error::Error;
use crate::kms::{
    CreateGrantRequest, CreateKeyRequest, Grant, GrantOperation, ListGrantsRequest, LocalKms, Page, PageRequest, Tag,
};
use std::future::Future;

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.unwrap_err().code().unwrap()
}

/// What all pages of so many items have together, and how many items each has.
fn walk<T, F: Future<Output = Result<Page<T>, Error>>>(
    limit: Option<u16>,
    page: impl Fn(PageRequest) -> F,
) -> (Vec<T>, Vec<usize>) {
    let (mut all, mut lengths, mut marker) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let mut request = PageRequest::default();
        if let Some(limit) = limit {
            request = request.limit(limit);
        }
        if let Some(marker) = marker {
            request = request.after(marker);
        }
        let page = block_on(page(request)).unwrap();
        lengths.push(page.items.len());
        all.extend(page.items);
        marker = page.next_marker;
        if marker.is_none() {
            return (all, lengths);
        }
    }
}

/// Two keys: 120 grants of the first, 40 of each of three principals; 5 of the second.
fn furnished(kms: &LocalKms) -> [String; 2] {
    let keys = ["alias/one", "alias/two"]
        .map(|alias| block_on(kms.create_key(CreateKeyRequest::default().alias(alias))).unwrap().key_id);
    for (key, count) in keys.iter().zip([120, 5]) {
        for number in 0..count {
            let request = CreateGrantRequest::new(format!("p{}", number % 3), [GrantOperation::Decrypt])
                .retiring_principal("steward");
            block_on(kms.create_grant(key, &request)).unwrap();
        }
    }
    keys
}

#[test]
fn grants_come_in_pages_and_by_grantee_and_id() {
    let place = Place::new();
    let kms = place.open();
    let [one, two] = furnished(&kms);
    let every = ListGrantsRequest::default();
    let all = block_on(kms.list_grants(&one)).unwrap();
    assert_eq!(all.len(), 120);
    let page = |request| kms.list_grants_page(&one, &every, request);
    assert_eq!(walk(None, page), (all.clone(), vec![50, 50, 20]), "50 by default, as in AWS");
    assert_eq!(walk(Some(100), page), (all.clone(), vec![100, 20]));
    assert_eq!(walk(Some(1), page).0, all);
    // A marker counts though its grant is gone.
    let first = block_on(page(PageRequest::default().limit(3))).unwrap();
    block_on(kms.revoke_grant(&one, &first.items[2].grant_id)).unwrap();
    let next = block_on(page(PageRequest::default().limit(3).after(first.next_marker.unwrap()))).unwrap();
    assert_eq!(next.items, all[3..6]);

    let of_p1 = ListGrantsRequest::default().grantee_principal("p1");
    let wanted: Vec<Grant> = block_on(kms.list_grants(&one)).unwrap();
    let wanted: Vec<Grant> = wanted.into_iter().filter(|grant| grant.grantee_principal == "p1").collect();
    assert!(wanted.len() >= 39);
    assert_eq!(walk(Some(7), |request| kms.list_grants_page(&one, &of_p1, request)).0, wanted);
    assert_eq!(block_on(kms.list_grants_matching(&one, &of_p1)).unwrap(), wanted);
    let by_id = of_p1.clone().grant_id(&wanted[5].grant_id);
    assert_eq!(block_on(kms.list_grants_matching(&one, &by_id)).unwrap(), [wanted[5].clone()]);
    let of_another = ListGrantsRequest::default().grantee_principal("p2").grant_id(&wanted[5].grant_id);
    assert!(block_on(kms.list_grants_matching(&one, &of_another)).unwrap().is_empty());
    assert!(block_on(kms.list_grants_matching(&two, &by_id)).unwrap().is_empty());

    let retirable = block_on(kms.list_retirable_grants("steward")).unwrap();
    assert_eq!(retirable.len(), 124);
    let steward = kms.as_principal("steward").unwrap();
    let page = |request| steward.list_retirable_grants_page("steward", request);
    assert_eq!(walk(None, page), (retirable.clone(), vec![50, 50, 24]));
    assert_eq!(walk(Some(99), page), (retirable, vec![99, 25]), "over the edge of a key");
    let other = kms.as_principal("p1").unwrap();
    let denied = other.list_retirable_grants_page("steward", PageRequest::default());
    assert_eq!(code(block_on(denied)), "AccessDeniedException");
}

#[test]
fn versions_come_in_pages() {
    let place = Place::new();
    let kms = place.open();
    block_on(kms.create_key(CreateKeyRequest::default().alias("alias/one"))).unwrap();
    for _ in 0..10 {
        block_on(kms.rotate("alias/one")).unwrap();
    }
    let all = block_on(kms.list_key_versions("alias/one")).unwrap();
    assert_eq!(all.len(), 11);
    let page = |request| kms.list_key_versions_page("alias/one", request);
    assert_eq!(walk(Some(4), page), (all.clone(), vec![4, 4, 3]));
    assert_eq!(walk(None, page), (all, vec![11]));
}

/// Which limit and which marker each list refuses.
#[test]
fn limits_and_markers_are_awss() {
    let place = Place::new();
    let kms = place.open();
    let key = block_on(kms.create_key(CreateKeyRequest::default().alias("alias/one"))).unwrap().key_id;
    block_on(kms.tag_resource(&key, [Tag::new("a", "b")])).unwrap();
    let every = ListGrantsRequest::default();
    type Ask<'a> = Box<dyn Fn(PageRequest) -> Result<(), Error> + 'a>;
    let lists: [(&str, u16, Option<&str>, Ask<'_>); 7] = [
        ("keys", 1_000, Some("x"), Box::new(|page| block_on(kms.list_keys_page(page)).map(drop))),
        ("aliases", 100, Some("x"), Box::new(|page| block_on(kms.list_aliases_page(page)).map(drop))),
        ("tags", 50, None, Box::new(|page| block_on(kms.list_resource_tags_page(&key, page)).map(drop))),
        ("rotations", 1_000, Some("x"), Box::new(|page| block_on(kms.list_key_rotations_page(&key, page)).map(drop))),
        ("versions", 1_000, Some("x"), Box::new(|page| block_on(kms.list_key_versions_page(&key, page)).map(drop))),
        ("grants", 100, Some("x"), Box::new(|page| block_on(kms.list_grants_page(&key, &every, page)).map(drop))),
        (
            "retirable grants",
            100,
            // A marker of the grants of one key.
            Some("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            Box::new(|page| block_on(kms.list_retirable_grants_page("steward", page)).map(drop)),
        ),
    ];
    for (name, most, marker, ask) in lists {
        ask(PageRequest::default()).unwrap();
        ask(PageRequest::default().limit(most)).unwrap();
        for limit in [0, most + 1] {
            assert_eq!(code(ask(PageRequest::default().limit(limit))), "ValidationException", "{name}: {limit}");
        }
        if let Some(marker) = marker {
            assert_eq!(code(ask(PageRequest::default().after(marker))), "InvalidMarkerException", "{name}");
        }
    }
    // What was refused is in the trail as that.
    let refused = place.trail().iter().filter(|it| it[0] == "ListAliases" && it[3] == "InvalidMarkerException").count();
    assert_eq!(refused, 1);
}
