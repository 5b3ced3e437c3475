// The peer of `x bench streams`: Benthos' core with its components that need no others, and topics of Kafka by franz-go, for the core has
// none. `peer CONFIG` runs a stream until its input ends, and prints seconds, CPU seconds and peak memory.
package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// So many records are a batch at most.
const together = 1000

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string) error {
	config, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := register(); err != nil {
		return err
	}
	builder := service.NewStreamBuilder()
	if err := builder.SetYAML(string(config)); err != nil {
		return err
	}
	stream, err := builder.Build()
	if err != nil {
		return err
	}
	begun, before := time.Now(), cpuSeconds()
	if err := stream.Run(context.Background()); err != nil {
		return err
	}
	seconds, cpu := time.Since(begun).Seconds(), cpuSeconds()-before
	fmt.Printf("seconds=%.3f cpu_seconds=%.3f rss_mb=%.1f\n", seconds, cpu, peakMemory())
	return nil
}

func register() error {
	spec := service.NewConfigSpec().Field(service.NewStringField("brokers")).Field(service.NewStringField("topic"))
	input := spec.Field(service.NewIntField("events"))
	err := service.RegisterBatchInput("topic", input, func(config *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
		brokers, topic, err := place(config)
		if err != nil {
			return nil, err
		}
		events, err := config.FieldInt("events")
		return service.AutoRetryNacksBatched(&reader{brokers: brokers, topic: topic, left: events}), err
	})
	if err != nil {
		return err
	}
	output := service.NewConfigSpec().Field(service.NewStringField("brokers")).Field(service.NewStringField("topic"))
	return service.RegisterBatchOutput("topic", output, func(config *service.ParsedConfig, _ *service.Resources) (service.BatchOutput, service.BatchPolicy, int, error) {
		brokers, topic, err := place(config)
		return &writer{brokers: brokers, topic: topic}, service.BatchPolicy{}, 8, err
	})
}

func place(config *service.ParsedConfig) (string, string, error) {
	brokers, err := config.FieldString("brokers")
	if err != nil {
		return "", "", err
	}
	topic, err := config.FieldString("topic")
	return brokers, topic, err
}

// Reads so many records of a topic in a group, and marks those that are acknowledged.
type reader struct {
	brokers, topic string
	left           int
	client         *kgo.Client
}

func (r *reader) Connect(context.Context) error {
	group := fmt.Sprintf("peer-%d", os.Getpid())
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers), kgo.ConsumeTopics(r.topic), kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	r.client = client
	return err
}

func (r *reader) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	if r.left <= 0 {
		return nil, nil, service.ErrEndOfInput
	}
	fetches := r.client.PollRecords(ctx, together)
	if err := fetches.Err(); err != nil {
		return nil, nil, err
	}
	records := fetches.Records()
	batch := make(service.MessageBatch, len(records))
	for i, record := range records {
		batch[i] = service.NewMessage(record.Value)
		batch[i].MetaSetMut("key", record.Key)
	}
	r.left -= len(records)
	return batch, func(_ context.Context, err error) error {
		if err == nil {
			r.client.MarkCommitRecords(records...)
		}
		return nil
	}, nil
}

func (r *reader) Close(ctx context.Context) error {
	defer r.client.Close()
	return r.client.CommitMarkedOffsets(ctx)
}

// Appends to a topic, and waits for all replicas.
type writer struct {
	brokers, topic string
	client         *kgo.Client
}

func (w *writer) Connect(context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers), kgo.DefaultProduceTopic(w.topic), kgo.AllowAutoTopicCreation())
	w.client = client
	return err
}

func (w *writer) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	records := make([]*kgo.Record, len(batch))
	for i, message := range batch {
		value, err := message.AsBytes()
		if err != nil {
			return err
		}
		records[i] = &kgo.Record{Value: value}
		if key, there := message.MetaGetMut("key"); there {
			records[i].Key, _ = key.([]byte)
		}
	}
	return w.client.ProduceSync(ctx, records...).FirstErr()
}

func (w *writer) Close(context.Context) error {
	w.client.Close()
	return nil
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	of := func(time syscall.Timeval) float64 { return float64(time.Sec) + float64(time.Usec)/1e6 }
	return of(usage.Utime) + of(usage.Stime)
}

// In megabytes.
func peakMemory() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return float64(usage.Maxrss) / 1024
}
