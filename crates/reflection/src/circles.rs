//! Files that import one another.

use std::collections::HashSet;

/// Checks that no file is in a circle of imports only because one file stands for others: `brought` are
/// the imports of all files, `served` those of the ones that are served, which are `chosen` among all.
///
/// Circles that were brought are left to the client.
///
/// # Errors
///
/// Two files of such a circle.
pub(crate) fn check(
    brought: &[&[Option<usize>]],
    served: &[Vec<Option<usize>>],
    chosen: &[usize],
    names: &[String],
) -> Result<(), String> {
    let served: Vec<&[Option<usize>]> = served.iter().map(Vec::as_slice).collect();
    let new = in_or_after_circles(&served).into_iter().filter(|&at| {
        let is_in_circle = reached(&served, at).contains(&at);
        is_in_circle && !reached(brought, chosen[at]).contains(&chosen[at])
    });
    let Some(one) = new.min_by_key(|&at| &names[at]) else {
        return Ok(());
    };
    let mut circle: Vec<usize> = reached(&served, one).into_iter().collect();
    circle.retain(|&at| at != one && reached(&served, at).contains(&one));
    let one = &names[one];
    let files = match circle.iter().map(|&at| &names[at]).min() {
        Some(other) => {
            let mut both = [one, other];
            both.sort_unstable();
            format!("{} and {} would import one another", both[0], both[1])
        }
        None => format!("{one} would import itself"),
    };
    Err(format!(
        "{files}, since crates bring versions of them whose definitions are spread over files in \
         different ways; compile both from one version of the schema"
    ))
}

/// The files that are left when again and again those are taken away that no other imports.
fn in_or_after_circles(imports: &[&[Option<usize>]]) -> Vec<usize> {
    let mut importers = vec![0_usize; imports.len()];
    for &import in imports.iter().copied().flatten().flatten() {
        importers[import] += 1;
    }
    let free = (0..imports.len()).filter(|&at| importers[at] == 0);
    let mut free: Vec<usize> = free.collect();
    while let Some(at) = free.pop() {
        for &import in imports[at].iter().flatten() {
            importers[import] -= 1;
            if importers[import] == 0 {
                free.push(import);
            }
        }
    }
    (0..imports.len()).filter(|&at| importers[at] > 0).collect()
}

/// What a file imports, and what that imports; itself only if it is in a circle.
fn reached(imports: &[&[Option<usize>]], from: usize) -> HashSet<usize> {
    let mut reached = HashSet::new();
    let mut left = vec![from];
    while let Some(at) = left.pop() {
        let imports = imports[at].iter().flatten().copied();
        left.extend(imports.filter(|&it| reached.insert(it)));
    }
    reached
}
