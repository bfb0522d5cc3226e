import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { ChatTemplate, loadChatTemplate } from './chat-template.js';
import { encodePair } from './encode-pair.js';
import { Tokenizer } from './tokenizer.js';
import { trainByteLevelBpe } from './train-bpe.js';

const files = trainByteLevelBpe(['猫狗喵汪你爱说笑'], {
  vocabSize: 320,
  specialTokens: ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<s>'],
  eosToken: '<|im_end|>',
  padToken: '<|endoftext|>',
});
const tokenizer = new Tokenizer(files.tokenizer, files.config);
const source = await readFile(new URL('../../tests/fixtures/chat/thinking.jinja', import.meta.url), 'utf8');
const thinking = new ChatTemplate(source, tokenizer, 'chat_template.jinja');

const turns = [
  { role: 'system', content: '你爱说笑。' },
  { role: 'user', content: '猫？' },
  { role: 'assistant', content: '<think>\n想\n</think>\n\n喵。' },
  { role: 'user', content: '狗？' },
  { role: 'assistant', content: '汪！' },
];

// As transformers writes it with this template.
const asked =
  '<|im_start|>system\n你爱说笑。<|im_end|>\n<|im_start|>user\n猫？<|im_end|>\n<|im_start|>assistant\n喵。<|im_end|>\n' +
  '<|im_start|>user\n狗？<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n';

describe('a template that thinks', () => {
  it('asks with thinking switched off', () => {
    expect(thinking.prompt(turns.slice(0, -1), 'here')).toBe(asked);
  });

  it('splits off the last turn, its end token included and nothing behind it', () => {
    expect(thinking.pair(turns, 'here')).toEqual({ prompt: asked, completion: '汪！<|im_end|>' });
  });

  it('gives a completion whose tokens are learned, with one end token', () => {
    const eosId = tokenizer.requireSpecial('eos', 'here');
    const { prompt, completion } = thinking.pair(turns, 'here');
    const { inputIds, completionMask } = encodePair(tokenizer, prompt, completion, { eosId, maxLength: 200 });
    const learned = inputIds.filter((_, i) => completionMask[i] === 1);
    expect(tokenizer.decode(learned)).toBe('汪！<|im_end|>');
    expect(inputIds.filter((id) => id === tokenizer.idOf('<|im_start|>'))).toHaveLength(5);
  });

  it('says what it refuses, and where', () => {
    const odd = [...turns.slice(0, 2), { role: 'narrator', content: '…' }];
    expect(() => thinking.prompt(odd, 'rows.jsonl:3')).toThrow(UserError);
    expect(() => thinking.prompt(odd, 'rows.jsonl:3')).toThrow(/There is no role narrator here/);
  });
});

describe('other templates', () => {
  it('that write a given turn otherwise than they ask for one: the turn is what follows what is asked', () => {
    const own =
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ '[answer]' if add_generation_prompt }}";
    const { prompt, completion } = new ChatTemplate(own, tokenizer, 'x').pair(turns.slice(3), 'here');
    expect({ prompt, completion }).toEqual({ prompt: '[user]狗？[answer]', completion: '汪！' });
  });

  it('that begin with BOS do not begin with two', () => {
    const bos = tokenizer.idOf('<s>')!;
    const piece = { SpecialToken: { id: '<s>', type_id: 0 } };
    const sequence = (id: string) => ({ Sequence: { id, type_id: 0 } });
    const post_processor = {
      type: 'TemplateProcessing',
      single: [piece, sequence('A')],
      pair: [piece, sequence('A'), sequence('B')],
      special_tokens: { '<s>': { id: '<s>', ids: [bos], tokens: ['<s>'] } },
    };
    const before = new Tokenizer({ ...files.tokenizer, post_processor }, { ...files.config, bos_token: '<s>' });
    const own = '{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}';
    const text = new ChatTemplate(own, before, 'x').prompt(turns.slice(3, 4), 'here');
    expect(before.encode(text).filter((id) => id === bos)).toHaveLength(1);
    // A tokenizer that adds none leaves it to the template.
    const bare = new Tokenizer(files.tokenizer, { ...files.config, bos_token: '<s>' });
    expect(new ChatTemplate(own, bare, 'x').prompt(turns.slice(3, 4), 'here')).toBe('<s>狗？<|im_end|>');
  });

  it('that write a date write the same every day', () => {
    const own = "{{ strftime_now('%d %b %Y') }}";
    expect(new ChatTemplate(own, tokenizer, 'x').prompt(turns, 'here')).toBe('26 Jul 2024');
  });
});

describe('a model folder', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'duanzi-chat-'));
  });
  afterAll(() => rm(dir, { recursive: true }));

  it('has its template in tokenizer_config.json, alone or among others, or in a file, which goes first', async () => {
    expect(await loadChatTemplate(dir, tokenizer)).toBeUndefined();
    const written = async (chat_template: unknown): Promise<string | undefined> => {
      await writeFile(join(dir, 'tokenizer_config.json'), JSON.stringify({ chat_template }));
      return (await loadChatTemplate(dir, tokenizer))?.prompt(turns, 'here');
    };
    expect(await written('one')).toBe('one');
    const several = [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'two' },
    ];
    expect(await written(several)).toBe('two');
    expect(await written(null)).toBeUndefined();
    await writeFile(join(dir, 'chat_template.jinja'), 'three');
    expect(await written('one')).toBe('three');
    await writeFile(join(dir, 'chat_template.jinja'), '{% if %}');
    await expect(loadChatTemplate(dir, tokenizer)).rejects.toThrow(UserError);
  });
});
