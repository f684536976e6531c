// istio_loader loads a plugin with Istio's own code, as the agent beside a
// proxy does, and says what came of it in one JSON document:
//
//	istio_loader oci://REGISTRY/REPOSITORY[:TAG|@DIGEST] [SHA256]
//
// DOCKER_CONFIG_JSON holds a pull secret, INSECURE=1 skips the check of the
// registry's certificate.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"istio.io/istio/pkg/util/sets"
	"istio.io/istio/pkg/wasm"
)

type verdict struct {
	Ok           bool   `json:"ok"`
	ImageDigest  string `json:"image_digest,omitempty"`
	PluginDigest string `json:"plugin_digest,omitempty"`
	Error        string `json:"error,omitempty"`
}

func load(url, checksum, dir string) verdict {
	options := wasm.Options{HTTPRequestTimeout: 15 * time.Second, HTTPRequestMaxRetries: 1}
	if os.Getenv("INSECURE") != "" {
		options.InsecureRegistries = sets.New("*")
	}
	cache := wasm.NewLocalFileCache(dir, options)
	defer cache.Cleanup()
	path, err := cache.Get(url, wasm.GetOptions{
		Checksum:        checksum,
		ResourceName:    "test.plugin",
		ResourceVersion: "1",
		RequestTimeout:  30 * time.Second,
		PullSecret:      []byte(os.Getenv("DOCKER_CONFIG_JSON")),
	})
	if err != nil {
		return verdict{Error: err.Error()}
	}
	module, err := os.ReadFile(path)
	if err != nil {
		return verdict{Error: err.Error()}
	}
	digest := sha256.Sum256(module)
	return verdict{
		Ok:           true,
		ImageDigest:  strings.TrimSuffix(filepath.Base(path), ".wasm"),
		PluginDigest: hex.EncodeToString(digest[:]),
	}
}

func main() {
	dir, err := os.MkdirTemp("", "istio-loader-")
	if err != nil {
		panic(err)
	}
	checksum := ""
	if len(os.Args) > 2 {
		checksum = os.Args[2]
	}
	result := load(os.Args[1], checksum, dir)
	os.RemoveAll(dir)
	_ = json.NewEncoder(os.Stdout).Encode(result)
}
