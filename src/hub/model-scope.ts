import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { ModelId } from '../config/model-id.js';
import { patiently } from '../transfer/fetch-file.js';
import { apiFetch, notTheApi, refusalOf, unexpected, type Place } from './api.js';
import type { Listing, ListingOptions } from './source.js';

const answer = z.object({
  Data: z.object({
    Files: z.array(
      z.object({
        Path: z.string(),
        Type: z.string(),
        Size: z.int().min(0),
        Sha256: z.string(),
        Revision: z.string().optional(),
      }),
    ),
  }),
});

/** The files of a model on ModelScope (魔搭), or the server that MODELSCOPE_DOMAIN names, with MODELSCOPE_API_TOKEN. */
export async function listModelScope(
  { name, revision = 'master' }: ModelId,
  options: ListingOptions,
): Promise<Listing> {
  const domain = process.env['MODELSCOPE_DOMAIN'] ?? 'www.modelscope.cn';
  const base = `${domain.includes('://') ? domain : `https://${domain}`}/api/v1/models/${name}/repo`;
  const token = process.env['MODELSCOPE_API_TOKEN'];
  const headers: Record<string, string> =
    token === undefined ? {} : { authorization: `Bearer ${token}`, cookie: `m_session_id=${token}` };
  const url = `${base}/files?Revision=${encodeURIComponent(revision)}&Recursive=false`;
  const place: Place = { server: 'ModelScope', model: name, url, login: 'set MODELSCOPE_API_TOKEN' };
  const ask = apiFetch(headers, options.signal);
  return patiently(url, options, async () => {
    const response = await ask(url, { headers: { accept: 'application/json' } });
    if (!response.ok) throw refusalOf(response.status, place) ?? unexpected(response.status, place);
    const parsed = answer.safeParse(await response.json().catch(() => undefined));
    if (!parsed.success) throw notTheApi(place, parsed.error);
    const blobs = parsed.data.Data.Files.filter(({ Type }) => Type === 'blob');
    return {
      commit: contentId(blobs),
      files: blobs.map(({ Path, Size, Sha256 }) => ({
        path: Path,
        bytes: Size,
        url: `${base}?Revision=${encodeURIComponent(revision)}&FilePath=${encodeURIComponent(Path)}`,
        checksum: { kind: 'sha256', value: Sha256 },
      })),
      headers,
      refusal: (status) => refusalOf(status, place),
    };
  });
}

/** The server names no commit of the whole, so its content does. */
function contentId(files: readonly { readonly Path: string; readonly Sha256: string }[]): string {
  const lines = files.map(({ Path, Sha256 }) => `${Path} ${Sha256}`).sort();
  return createHash('sha1').update(lines.join('\n')).digest('hex');
}
