// Go's net/http, with a Flusher after each event: https://pkg.go.dev/net/http#Flusher
//
// server FD [-tls FILE] [-gzip]: serves on the listening socket FD until it is ended, under TLS with the certificate and
// the key in FILE, or with its paced streams compressed: https://pkg.go.dev/compress/gzip#Writer.Flush
package main

import (
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const clockMonotonic = 1 // linux/time.h

var (
	certificate = flag.String("tls", "", "serve under TLS with this file")
	compressed  = flag.Bool("gzip", false, "compress paced streams")
	began       = time.Now()
	base        = monotonic()

	mutex       sync.RWMutex
	subscribers = map[chan []byte]struct{}{}
)

// monotonic asks the kernel for CLOCK_MONOTONIC, which Go keeps to itself. Once: stamp adds what has passed since.
func monotonic() int64 {
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

// stamp is one event, made now.
func stamp() []byte {
	return []byte(fmt.Sprintf("data: %018d\n\n", base+int64(time.Since(began))))
}

func number(r *http.Request, name string) int {
	found, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil {
		panic(err)
	}
	return found
}

// start begins an answer that streams events; what it gives sends each.
func start(w http.ResponseWriter, zip bool) func([]byte) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flusher := w.(http.Flusher)
	if !zip {
		return func(event []byte) error {
			_, err := w.Write(event)
			flusher.Flush()
			return err
		}
	}
	w.Header().Set("Content-Encoding", "gzip")
	writer := gzip.NewWriter(w)
	return func(event []byte) error {
		if event == nil {
			return writer.Close()
		}
		writer.Write(event)
		err := writer.Flush()
		flusher.Flush()
		return err
	}
}

func paced(w http.ResponseWriter, r *http.Request) {
	events := number(r, "events")
	interval, err := strconv.ParseFloat(r.URL.Query().Get("interval"), 64)
	if err != nil {
		panic(err)
	}
	send := start(w, *compressed)
	begin := time.Now()
	for n := 0; n < events; n++ {
		time.Sleep(time.Until(begin.Add(time.Duration(float64(n) * interval * 1e9))))
		if send(stamp()) != nil {
			return
		}
	}
	if *compressed {
		send(nil)
	}
}

func burst(w http.ResponseWriter, r *http.Request) {
	send := start(w, false)
	for n := number(r, "events"); n > 0; n-- {
		if send(stamp()) != nil {
			return
		}
	}
}

func first(w http.ResponseWriter, r *http.Request) {
	send := start(w, false)
	send(stamp())
	time.Sleep(time.Millisecond)
	send(stamp())
}

func fanout(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 16)
	mutex.Lock()
	subscribers[events] = struct{}{}
	mutex.Unlock()
	defer func() {
		mutex.Lock()
		delete(subscribers, events)
		mutex.Unlock()
	}()
	send := start(w, false)
	w.(http.Flusher).Flush()
	for {
		select {
		case event := <-events:
			if send(event) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "cannot read", http.StatusBadRequest)
		return
	}
	event := []byte(fmt.Sprintf("data: %s\n\n", body))
	mutex.RLock()
	for events := range subscribers {
		select {
		case events <- event:
		default: // it is far behind
		}
	}
	mutex.RUnlock()
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	descriptor, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	flag.CommandLine.Parse(os.Args[2:])
	listener, err := net.FileListener(os.NewFile(uintptr(descriptor), "listener"))
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/paced", paced)
	http.HandleFunc("/burst", burst)
	http.HandleFunc("/first", first)
	http.HandleFunc("/fanout", fanout)
	http.HandleFunc("/publish", publish)
	http.HandleFunc("/short", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	if *certificate != "" {
		panic(http.ServeTLS(listener, nil, *certificate, *certificate))
	}
	panic(http.Serve(listener, nil))
}
