// Produces and consumes with franz-go, a client that shares no code with librdkafka, and says "ok" when all came back.
//
//	go run . HOST:PORT TOPIC
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	records    = 2000
	partitions = 3
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run . HOST:PORT TOPIC")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(ctx context.Context, broker, topic string) error {
	producer, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := create(ctx, producer, topic); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := produce(ctx, producer); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	half, err := consume(ctx, broker, topic, records/2)
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	rest, err := consume(ctx, broker, topic, records-len(half))
	if err != nil {
		return fmt.Errorf("consume the rest: %w", err)
	}
	for value := range rest {
		if half[value] {
			return fmt.Errorf("%s came again although it was committed", value)
		}
		half[value] = true
	}
	if len(half) != records {
		return fmt.Errorf("%d of %d records came", len(half), records)
	}
	return remove(ctx, producer, topic)
}

func create(ctx context.Context, client *kgo.Client, topic string) error {
	ask := kmsg.NewCreateTopicsRequestTopic()
	ask.Topic, ask.NumPartitions, ask.ReplicationFactor = topic, partitions, 1
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = append(request.Topics, ask)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

func remove(ctx context.Context, client *kgo.Client, topic string) error {
	ask := kmsg.NewDeleteTopicsRequestTopic()
	ask.Topic = &topic
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TopicNames, request.Topics = []string{topic}, append(request.Topics, ask)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

func produce(ctx context.Context, client *kgo.Client) error {
	batch := make([]*kgo.Record, records)
	for i := range batch {
		batch[i] = &kgo.Record{
			Key:     []byte(fmt.Sprint("key ", i%17)),
			Value:   []byte(fmt.Sprint("value ", i)),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(fmt.Sprint(i))}, {Key: "null"}},
		}
	}
	return client.ProduceSync(ctx, batch...).FirstErr()
}

// Reads at least count records in the group and commits exactly what it read.
func consume(ctx context.Context, broker, topic string, count int) (map[string]bool, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(broker),
		kgo.ConsumerGroup(topic),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	seen := map[string]bool{}
	for len(seen) < count {
		fetches := client.PollRecords(ctx, 100)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		for _, record := range fetches.Records() {
			value := string(record.Value)
			headers := record.Headers
			if len(headers) != 2 || "value "+string(headers[0].Value) != value || headers[1].Value != nil {
				return nil, errors.New(value + " has other headers: " + fmt.Sprint(headers))
			}
			if seen[value] {
				return nil, errors.New(value + " came twice")
			}
			seen[value] = true
		}
		if err := client.CommitRecords(ctx, fetches.Records()...); err != nil {
			return nil, err
		}
	}
	return seen, nil
}
