/* What evergate needs of Intel's multi-buffer library: its AES-GCM functions for this processor. The
 * header's own macros and structures are used here, so that Rust has to know none of them. */
#include <intel-ipsec-mb.h>
#include <stddef.h>

/* As `Functions` in ipsec_mb.rs; first for keys of 16 bytes, then of 32. */
struct functions {
        aes_gcm_pre_t expand[2];
        aes_gcm_enc_dec_t seal[2];
        aes_gcm_enc_dec_t open[2];
};

/* As `Expanded` and `Scratch` in ipsec_mb.rs. */
_Static_assert(sizeof(struct gcm_key_data) <= 1024, "size of an expanded key");
_Static_assert(_Alignof(struct gcm_key_data) <= 64, "alignment of an expanded key");
_Static_assert(sizeof(struct gcm_context_data) <= 96, "size of a context");
_Static_assert(_Alignof(struct gcm_context_data) <= 16, "alignment of a context");

/* Fills in the functions; 0 if all went well. They are code of the library, and do not need the manager
 * that names them. */
int evergate_ipsec_mb(struct functions *functions)
{
        IMB_MGR *manager = alloc_mb_mgr(0);
        if (manager == NULL)
                return -1;
        init_mb_mgr_auto(manager, NULL);
        const int error = imb_get_errno(manager);
        *functions = (struct functions){
                .expand = { manager->gcm128_pre, manager->gcm256_pre },
                .seal = { manager->gcm128_enc, manager->gcm256_enc },
                .open = { manager->gcm128_dec, manager->gcm256_dec },
        };
        free_mb_mgr(manager);
        return error;
}
