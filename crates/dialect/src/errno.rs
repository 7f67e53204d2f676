//! What the kernel says of a call that failed, in the words of Go's and C's libraries.

/// Words of errors of the kernel, in lower case. Those with a cause of their own (`no space left on device` and its like) are not here.
const WORDS: &[&str] = &[
    "access is denied",
    "argument list too long",
    "bad file descriptor",
    "cannot assign requested address",
    "connection timed out",
    "device or resource busy",
    "directory not empty",
    "exec format error",
    "file exists",
    "file name too long",
    "function not implemented",
    "invalid argument",
    "invalid cross-device link",
    "is a directory",
    "network is unreachable",
    "no data available",
    "no route to host",
    "no such device",
    "no such device or address",
    "no such file or directory",
    "not a directory",
    "numerical result out of range",
    "operation not permitted",
    "operation not supported",
    "permission denied",
    "resource temporarily unavailable",
    "stale file handle",
    "stale nfs file handle",
    "text file busy",
    "the data is invalid",
    "the file cannot be accessed by the system",
    "the parameter is incorrect",
    "the specified module could not be found",
    "the system cannot find the file specified",
    "the system cannot find the path specified",
    "too many levels of symbolic links",
    "too many links",
    "transport endpoint is not connected",
    "value too large for defined data type",
];

/// Whether a link is what the kernel said, and nothing else.
pub(crate) fn is_errno(plain: &str) -> bool {
    WORDS.binary_search(&plain).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_searched() {
        let mut sorted = WORDS.to_vec();
        sorted.sort_unstable();
        assert!(sorted.iter().all(|words| is_errno(words)));
        assert!(!is_errno("no such host"));
    }
}
