//! The ring of ring_hash: hashes of endpoints in order, on which the hash of a call finds its place (gRFC A42).

use xxhash_rust::xxh64::xxh64;

/// The places of endpoints on a ring. It depends only on keys, weights and sizes, not on the order of the list, so that
/// all clients of a server agree.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Hashes in order, each with the place of its endpoint in the list.
    entries: Box<[(u64, usize)]>,
}

impl Ring {
    /// Creates a ring of the endpoints with these keys and weights. The lightest endpoint has a whole number of
    /// entries, so that there are at least `min_size`, if `max_size` permits.
    pub(crate) fn new(endpoints: &[(&str, u32)], min_size: u32, max_size: u32) -> Self {
        let sum: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let share = |weight: u32| f64::from(weight) / sum as f64;
        let lightest = endpoints.iter().map(|(_, weight)| *weight).min();
        let lightest = share(lightest.unwrap_or(1));
        let scale = ((lightest * f64::from(min_size)).ceil() / lightest).min(max_size.into());
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        order.sort_by_key(|at| endpoints[*at].0);
        let mut entries: Vec<(u64, usize)> = Vec::new();
        let mut target = 0.0;
        for at in order {
            let (key, weight) = endpoints[at];
            target += scale * share(weight);
            let mut number = 0;
            while (entries.len() as f64) < target {
                let entry = format!("{key}_{number}");
                entries.push((hash(entry.as_bytes()), at));
                number += 1;
            }
        }
        entries.sort_by_key(|(hash, _)| *hash);
        Self {
            entries: entries.into(),
        }
    }

    /// Returns the endpoints of all entries, from the first one whose hash is `hash` or more.
    pub(crate) fn endpoints_from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.entries.partition_point(|(entry, _)| *entry < hash);
        let (before, after) = self.entries.split_at(first);
        after.iter().chain(before).map(|(_, endpoint)| *endpoint)
    }
}

/// Returns the hash of a key: XXH64 with seed 0.
pub(crate) fn hash(key: &[u8]) -> u64 {
    xxh64(key, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: [(&str, u32); 3] = [("a", 3), ("b", 3), ("c", 4)];

    fn names(ring: &Ring, from: u64) -> String {
        let endpoints = ring.endpoints_from(from);
        endpoints.map(|at| ABC[at].0).collect()
    }

    fn entries(ring: &Ring, endpoints: usize) -> Vec<usize> {
        let count = |at: usize| ring.entries.iter().filter(|(_, it)| *it == at).count();
        (0..endpoints).map(count).collect()
    }

    /// The hashes are those of libxxhash 0.8.1.
    #[test]
    fn hashes_are_those_of_xxh64() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"a_0"), 7_866_922_100_246_443_948);
        assert_eq!(hash(b"alice"), 8_332_761_332_120_969_289);
    }

    /// The weights 3, 3 and 4 with 10 entries, the example of grpc-go; the hashes of "a_0" to "c_3" by libxxhash.
    #[test]
    fn the_ring_is_in_the_order_of_its_hashes() {
        let ring = Ring::new(&ABC, 10, 20);
        let hashes: Vec<u64> = ring.entries.iter().map(|(hash, _)| *hash).collect();
        let expected = [
            4_148_279_810_343_392_165,  // a
            4_189_641_231_046_734_040,  // b
            5_051_629_784_258_667_479,  // c
            5_637_671_355_026_233_228,  // b
            6_560_897_439_782_492_108,  // b
            7_866_922_100_246_443_948,  // a
            8_142_612_688_290_817_183,  // c
            14_554_126_711_339_088_812, // c
            14_801_583_559_950_740_418, // c
            18_017_992_814_255_492_179, // a
        ];
        assert_eq!(hashes, expected);
        assert_eq!(names(&ring, 0), "abcbbaccca");
        assert_eq!(names(&ring, expected[2]), "cbbacccaab");
        assert_eq!(names(&ring, expected[2] + 1), "bbacccaabc");
        assert_eq!(names(&ring, expected[9]), "aabcbbaccc");
        assert_eq!(
            names(&ring, expected[9] + 1),
            "abcbbaccca",
            "after the last comes the first"
        );
    }

    #[test]
    fn endpoints_have_entries_by_weight_within_the_sizes() {
        // scale = min(ceil(0.3 * min) / 0.3, max): ceil(0.9) / 0.3 = 3.33, ceil(2.4) / 0.3 = 10, at most 8. The targets
        // are 0.3, 0.6 and 1 of it; each endpoint fills up to the next whole number.
        for (min, max, expected) in [
            (3, 20, [1, 1, 2]), // 3.33: 1, 2, 3.33
            (4, 20, [2, 2, 3]), // 6.67: 2, 4, 6.67
            (8, 20, [3, 3, 4]), // 10
            (8, 8, [3, 2, 3]),  // 8: 2.4, 4.8, 8
            (10, 10, [3, 3, 4]),
            (1, 1, [1, 0, 0]), // 1: 0.3, 0.6, 1
        ] {
            let ring = Ring::new(&ABC, min, max);
            assert_eq!(entries(&ring, 3), expected, "{min} to {max}");
        }
        let heavy = [("a", u32::MAX), ("b", u32::MAX), ("c", 1)];
        assert_eq!(
            entries(&Ring::new(&heavy, 1_024, 4_096), 3),
            [2_048, 2_048, 0]
        );
        assert_eq!(entries(&Ring::new(&[], 1_024, 4_096), 0), [0; 0]);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let shuffled = [ABC[2], ABC[0], ABC[1]];
        let ring = Ring::new(&shuffled, 7, 7);
        let shuffled = ring.endpoints_from(0).map(|at| shuffled[at].0);
        let listed: String = shuffled.collect();
        assert_eq!(listed, names(&Ring::new(&ABC, 7, 7), 0));
    }

    #[test]
    fn removing_one_of_ten_endpoints_moves_its_keys_only() {
        let keys: Vec<String> = (0..10).map(|it| format!("10.0.0.{it}:80")).collect();
        let all: Vec<(&str, u32)> = keys.iter().map(|it| (it.as_str(), 1)).collect();
        let before = Ring::new(&all, 1_000, 1_000);
        let after = Ring::new(&all[..9], 900, 900);
        let (mut moved, mut moved_needlessly) = (0, 0);
        for call in 0..10_000 {
            let hash = hash(format!("key{call}").as_bytes());
            let first = |ring: &Ring| ring.endpoints_from(hash).next().unwrap();
            if first(&before) != first(&after) {
                moved += 1;
                moved_needlessly += usize::from(first(&before) != 9);
            }
        }
        // A tenth of 10,000, with the unevenness of 100 entries for each.
        assert!((500..1_500).contains(&moved), "{moved}");
        assert_eq!(moved_needlessly, 0);
    }
}
