//! Time and chance, both injected: a simulation sees the same uids, names and times for the same seed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// What the server takes for now.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// Follows the runtime's clock from a starting point, so it stands still and jumps with Tokio's paused time.
pub struct RuntimeClock {
    start: Timestamp,
    since: Instant,
}

impl RuntimeClock {
    /// Begins at `start`. Needs no runtime, but moves with one.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, since: Instant::now() }
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        self.start.checked_add(self.since.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// Whole seconds, as `metadata` has them.
pub fn seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

/// The age of something as tables show it: `12s`, `5m3s`, `5d2h`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |big: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if days < 8 * 365 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// Letters of generated names: no vowels, nothing that looks like another.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// A generated name has at most this much of its prefix.
const PREFIX_MAX: usize = 58;

/// Makes uids, generated names and free choices from one seed.
pub struct IdGenerator(fastrand::Rng);

impl IdGenerator {
    /// Everything follows from the seed.
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A version 4 UUID.
    pub fn uid(&mut self) -> String {
        let bits = (self.0.u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// `prefix` and five letters.
    pub fn name(&mut self, prefix: &str) -> String {
        let mut name: String = prefix.chars().take(PREFIX_MAX).collect();
        for _ in 0..5 {
            name.push(char::from(NAME_LETTERS[self.0.usize(..NAME_LETTERS.len())]));
        }
        name
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        self.0.u32(..end.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let shown = |seconds| human(Duration::from_secs(seconds));
        let day = 86400;
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (303, "5m3s"),
            (600, "10m"),
            (10799, "179m"),
            (10800, "3h"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (2 * day, "2d"),
            (5 * day + 7200, "5d2h"),
            (8 * day, "8d"),
            (1056 * day, "2y326d"),
            (9 * 365 * day, "9y"),
        ];
        for (seconds, want) in cases {
            assert_eq!(shown(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn chance_follows_the_seed() {
        let (mut one, mut two) = (IdGenerator::seeded(7), IdGenerator::seeded(7));
        let uid = one.uid();
        assert_eq!(uid, two.uid());
        assert_eq!((&uid[14..15], uid.len()), ("4", 36));
        assert!("89ab".contains(&uid[19..20]));
        let name = one.name(&"p".repeat(80));
        assert_eq!(name.len(), 63);
    }
}
