// Package suite names the conformance suite in its four-workflow form, so that go.mod and go.sum pin all of it.
package suite

import _ "github.com/opencontainers/distribution-spec/conformance"
