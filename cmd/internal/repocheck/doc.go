// Package repocheck holds no code, only tests of the repository as a whole:
// that packages import each other as the design says, that the documentation's
// links resolve, that what is shipped is in order.
//
// `make check` runs them uncached, because the test cache does not know of
// everything they read.
package repocheck
