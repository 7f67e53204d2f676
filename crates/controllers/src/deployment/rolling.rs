//! The numbers of a rolling update.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// `maxSurge` and `maxUnavailable` as numbers: a share of surge is rounded up, of unavailability down, and both are never 0.
pub(super) fn bounds(
    surge: Option<&IntOrString>,
    unavailable: Option<&IntOrString>,
    desired: i32,
) -> (i32, i32) {
    let quarter = IntOrString::String("25%".to_owned());
    let surge = resolve(surge.unwrap_or(&quarter), desired, true);
    let unavailable = resolve(unavailable.unwrap_or(&quarter), desired, false).min(desired);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

fn resolve(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent.max(0).saturating_mul(i64::from(of));
            let share = if up {
                hundredths.div_ceil_to(100)
            } else {
                hundredths / 100
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

trait DivCeil {
    fn div_ceil_to(self, by: Self) -> Self;
}

impl DivCeil for i64 {
    fn div_ceil_to(self, by: Self) -> Self {
        (self + by - 1) / by
    }
}

/// How many replicas the new replica set may have when it has `has` of `total`.
pub(super) fn scale_up(has: i32, total: i32, desired: i32, surge: i32) -> i32 {
    let room = (desired + surge - total).max(0);
    has + room.min(desired - has).max(0)
}

/// How many replicas the new replica set is to have: no more than wanted, and grown as far as the surge allows.
pub(super) fn new_size(has: i32, total: i32, desired: i32, surge: i32) -> i32 {
    if has >= desired {
        desired
    } else {
        scale_up(has, total, desired, surge)
    }
}

/// How many replicas the old replica sets are to have. Each number is `(replicas, available)`. Replicas that are not
/// available go first: they serve nobody.
pub(super) fn old_sizes(
    old: &[(i32, i32)],
    new: (i32, i32),
    desired: i32,
    max_unavailable: i32,
) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|(replicas, _)| *replicas).collect();
    let total: i32 = sizes.iter().sum::<i32>() + new.0;
    let least = desired - max_unavailable;
    let mut may_go = total - least - (new.0 - new.1);
    if may_go <= 0 {
        return sizes;
    }
    for (size, (replicas, available)) in sizes.iter_mut().zip(old) {
        let gone = (replicas - available).clamp(0, may_go.max(0));
        *size -= gone;
        may_go -= gone;
    }
    let available: i32 = old.iter().map(|(_, available)| *available).sum::<i32>() + new.1;
    let mut surplus = available - least;
    for size in &mut sizes {
        let gone = (*size).min(surplus).max(0);
        *size -= gone;
        surplus -= gone;
    }
    sizes
}

/// Shares out a new total in proportion to the sizes; what rounding leaves goes to the last.
pub(super) fn proportional(sizes: &[i32], target: i32) -> Vec<i32> {
    let total: i64 = sizes.iter().copied().map(i64::from).sum();
    if total == 0 || sizes.len() < 2 {
        return vec![target; sizes.len()];
    }
    let share = |size: &i32| {
        i32::try_from(i64::from(*size) * i64::from(target) / total).unwrap_or(i32::MAX)
    };
    let mut shares: Vec<i32> = sizes.iter().map(share).collect();
    let rest = target - shares.iter().sum::<i32>();
    if let Some(last) = shares.last_mut() {
        *last += rest;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_resolved_as_kubernetes_does() {
        let int = IntOrString::Int;
        let share = |text: &str| IntOrString::String(text.to_owned());
        for (surge, unavailable, desired, expected) in [
            (None, None, 4, (1, 1)),
            (None, None, 1, (1, 0)),
            (None, None, 10, (3, 2)),
            (Some(int(2)), Some(int(0)), 3, (2, 0)),
            (Some(int(0)), Some(int(0)), 3, (0, 1)),
            (Some(share("0%")), Some(share("10%")), 5, (0, 1)),
            (Some(share("100%")), Some(share("100%")), 5, (5, 5)),
            (Some(int(1)), Some(int(9)), 3, (1, 3)),
        ] {
            assert_eq!(
                bounds(surge.as_ref(), unavailable.as_ref(), desired),
                expected,
                "{surge:?} {unavailable:?} {desired}"
            );
        }
    }

    #[test]
    fn the_old_shrink_as_far_as_availability_allows() {
        for (old, new, desired, unavailable, expected) in [
            // Nothing of the new one is available and no pod may be missing.
            (vec![(3, 3)], (1, 0), 3, 0, vec![3]),
            (vec![(3, 3)], (1, 1), 3, 0, vec![2]),
            (vec![(3, 3)], (1, 0), 3, 1, vec![2]),
            // A broken old one goes at once, also while the new one is not ready.
            (vec![(2, 0), (2, 2)], (1, 0), 3, 1, vec![0, 2]),
            (vec![(1, 1), (2, 2)], (3, 3), 3, 1, vec![0, 0]),
            (vec![], (3, 3), 3, 1, vec![]),
        ] {
            assert_eq!(
                old_sizes(&old, new, desired, unavailable),
                expected,
                "{old:?} {new:?}"
            );
        }
    }

    #[test]
    fn the_new_grows_within_the_surge() {
        for (has, total, desired, surge, expected) in [
            (0, 3, 3, 1, 1),
            (0, 3, 3, 0, 0),
            (1, 3, 3, 1, 2),
            (0, 0, 3, 1, 3),
            (5, 5, 3, 1, 3),
            (2, 4, 3, 1, 2),
        ] {
            assert_eq!(
                new_size(has, total, desired, surge),
                expected,
                "{has} {total} {desired} {surge}"
            );
        }
    }

    #[test]
    fn proportions() {
        assert_eq!(proportional(&[2], 5), [5]);
        assert_eq!(proportional(&[2, 2], 6), [3, 3]);
        assert_eq!(proportional(&[1, 2], 5), [1, 4]);
        assert_eq!(proportional(&[4, 4], 1), [0, 1]);
    }
}
