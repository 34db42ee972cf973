// Go's net/http, with a Flusher and a channel for each subscriber: https://pkg.go.dev/net/http#Flusher
//
// channel FD: serves on the listening socket FD until it is ended.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
)


var (
	mutex       sync.RWMutex
	subscribers = map[chan []byte]struct{}{}
)

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
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flusher := w.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case event := <-events:
			if _, err := w.Write(event); err != nil {
				return
			}
			flusher.Flush()
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
	number, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	listener, err := net.FileListener(os.NewFile(uintptr(number), "listener"))
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/fanout", fanout)
	http.HandleFunc("/publish", publish)
	http.HandleFunc("/short", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	panic(http.Serve(listener, nil))
}
