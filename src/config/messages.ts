import { z } from 'zod';

/** One turn of a conversation, as chat templates read it; further keys are handed on to them. */
export const message = z.looseObject({ role: z.string().min(1), content: z.string() });
export type Message = z.output<typeof message>;

/** A conversation whose last turn is the assistant's: what is learned or scored. */
export const answered = z
  .array(message)
  .min(2, 'a conversation has at least two turns, the last one of the assistant')
  .refine((turns) => turns.at(-1)?.role === 'assistant', 'the last turn is not of the role assistant')
  .refine((turns) => turns.at(-1)?.content.trim() !== '', 'the last turn is empty');

/** A conversation that waits for the assistant. */
export const unanswered = z
  .array(message)
  .min(1, 'there is no turn to answer')
  .refine((turns) => turns.at(-1)?.role !== 'assistant', 'the last turn is of the role assistant: nothing is to write');

/**
 * A conversation's prompt in plain words, for what does not know the chat template: the last thing that was said to the
 * assistant, and a line break.
 */
export const plainPrompt = (turns: readonly Message[]): string =>
  `${turns.findLast(({ role }) => role !== 'assistant')?.content ?? ''}\n`;
