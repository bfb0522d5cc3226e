import { completionOf, placeOf, type Row } from '../data/row.js';
import { promptsOf, type Prompt, type Templates } from '../data/templates.js';
import { UserError } from '../errors.js';
import type { ChatTemplate } from './chat-template.js';

/** A prompt as a model is given it, and what is to follow. */
export interface TextSample extends Prompt {
  readonly completion: string;
  /** The prompt as a reward reads it: without the markup of a chat template. */
  readonly plainPrompt: string;
}

/**
 * What a row gives a model to learn: a conversation through the model's chat template, any other row through every
 * prompt template that it fills.
 *
 * @param model the folder, for the error where it has no chat template
 * @throws UserError for a conversation without a template, or a row that fills none
 */
export function samplesOf(
  row: Row,
  templates: Templates,
  { chat, model }: { readonly chat: ChatTemplate | undefined; readonly model: string },
): TextSample[] {
  const prompts = promptsOf(row, templates);
  if (row.messages === undefined) {
    return prompts.map((each) => ({ ...each, plainPrompt: each.prompt, completion: completionOf(row) }));
  }
  const { prompt, completion } = requireChat(chat, model, placeOf(row)).pair(row.messages, placeOf(row));
  return prompts.map(({ template, prompt: plainPrompt }) => ({ template, prompt, plainPrompt, completion }));
}

/** The chat template of a model that is given conversations; `where` is where the first of them stands. */
export function requireChat(chat: ChatTemplate | undefined, model: string, where: string): ChatTemplate {
  if (chat !== undefined) return chat;
  throw new UserError({
    code: 'chat.no-template',
    message: `This is a conversation, and the model ${model} has no chat template: it was not made for conversations.`,
    where,
    fix: 'Give a model with one (chat_template.jinja, or chat_template in tokenizer_config.json), or plain prompts.',
  });
}
