import protobuf from 'protobufjs/light.js';
import { z } from 'zod';

/** `tensorflow.DataType.DT_STRING` */
export const DT_STRING = 7;
/** `tensorflow.SessionLog.SessionStatus.START` */
export const SESSION_START = 1;

/**
 * The fields that we write or read of TensorFlow's `event.proto`, `summary.proto`, `histogram.proto`, `tensor.proto`
 * and `tensor_shape.proto`; a reader skips fields that it does not know.
 */
const root = protobuf.Root.fromJSON({
  nested: {
    Event: {
      oneofs: { what: { oneof: ['fileVersion', 'summary', 'sessionLog'] } },
      fields: {
        wallTime: { type: 'double', id: 1 },
        step: { type: 'int64', id: 2 },
        fileVersion: { type: 'string', id: 3 },
        summary: { type: 'Summary', id: 5 },
        sessionLog: { type: 'SessionLog', id: 7 },
        sourceMetadata: { type: 'SourceMetadata', id: 10 },
      },
    },
    SourceMetadata: { fields: { writer: { type: 'string', id: 1 } } },
    SessionLog: { fields: { status: { type: 'int32', id: 1 } } },
    Summary: { fields: { value: { rule: 'repeated', type: 'SummaryValue', id: 1 } } },
    SummaryValue: {
      oneofs: { value: { oneof: ['simpleValue', 'histo', 'tensor'] } },
      fields: {
        tag: { type: 'string', id: 1 },
        simpleValue: { type: 'float', id: 2 },
        histo: { type: 'Histogram', id: 5 },
        tensor: { type: 'Tensor', id: 8 },
        metadata: { type: 'SummaryMetadata', id: 9 },
      },
    },
    SummaryMetadata: { fields: { pluginData: { type: 'PluginData', id: 1 } } },
    PluginData: { fields: { pluginName: { type: 'string', id: 1 } } },
    Tensor: {
      fields: {
        dtype: { type: 'int32', id: 1 },
        tensorShape: { type: 'TensorShape', id: 2 },
        stringVal: { rule: 'repeated', type: 'bytes', id: 8 },
      },
    },
    TensorShape: { fields: { dim: { rule: 'repeated', type: 'Dim', id: 2 } } },
    Dim: { fields: { size: { type: 'int64', id: 1 } } },
    Histogram: {
      fields: {
        min: { type: 'double', id: 1 },
        max: { type: 'double', id: 2 },
        num: { type: 'double', id: 3 },
        sum: { type: 'double', id: 4 },
        sumSquares: { type: 'double', id: 5 },
        bucketLimit: { rule: 'repeated', type: 'double', id: 6 },
        bucket: { rule: 'repeated', type: 'double', id: 7 },
      },
    },
  },
});

const EventType = root.lookupType('Event');

const float = z.union([z.number(), z.nan(), z.literal([Infinity, -Infinity])]);
const histogram = z.object({
  min: float.default(0),
  max: float.default(0),
  num: float.default(0),
  sum: float.default(0),
  sumSquares: float.default(0),
  bucketLimit: z.array(float).default([]),
  bucket: z.array(float).default([]),
});
const tensor = z.object({
  dtype: z.int().default(0),
  tensorShape: z.object({ dim: z.array(z.object({ size: z.int().default(0) })).default([]) }).default({ dim: [] }),
  stringVal: z.array(z.instanceof(Uint8Array)).default([]),
});
const summaryValue = z.object({
  tag: z.string().default(''),
  simpleValue: float.optional(),
  histo: histogram.optional(),
  tensor: tensor.optional(),
  metadata: z.object({ pluginData: z.object({ pluginName: z.string().default('') }).optional() }).optional(),
});
const event = z.object({
  wallTime: float.default(0),
  step: z.int().optional(),
  fileVersion: z.string().optional(),
  summary: z.object({ value: z.array(summaryValue).default([]) }).optional(),
  sessionLog: z.object({ status: z.int().default(0) }).optional(),
  sourceMetadata: z.object({ writer: z.string().default('') }).optional(),
});

/** An `Event` message with the names of its fields in camel case; absent scalars have protobuf's defaults. */
export type EventMessage = z.infer<typeof event>;
export type EventMessageInput = z.input<typeof event>;
export type SummaryValueMessage = z.infer<typeof summaryValue>;
export type Histogram = z.infer<typeof histogram>;

/** Serialises an event. Step 0 is left out, as protobuf leaves out defaults. */
export function encodeEvent(message: EventMessageInput): Uint8Array {
  const { step, ...rest } = message;
  return EventType.encode(EventType.fromObject(step === 0 || step === undefined ? rest : { step, ...rest })).finish();
}

/**
 * Parses an event.
 *
 * @throws Error where the bytes are not the message (the framing's checksum has proven that they are what was written)
 */
export function decodeEvent(bytes: Uint8Array): EventMessage {
  return event.parse(EventType.toObject(EventType.decode(bytes), { longs: Number }));
}
