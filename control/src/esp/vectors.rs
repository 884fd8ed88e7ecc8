//! Published vectors: each row is key, nonce, additional data, plaintext, ciphertext, tag in
//! hexadecimal digits.

use super::key::decode;
use super::*;

type Vector = [&'static str; 6];

/// Test cases 1, 2, 4, 13, 14 and 16 of the GCM specification that NIST SP 800-38D builds on.
const GCM: [Vector; 6] = [
    [
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "58e2fccefa7e3061367f1d57a4e7455a",
    ],
    [
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "0388dace60b6a392f328c2b971b2fe78",
        "ab6e47d42cec13bdf53a67b21257bddf",
    ],
    [
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c9595680953\
         2fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c\
         7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        "5bc94fbc3221a5db94fae95ae7121a47",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c9595680953\
         2fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3d\
         a7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ],
];

/// The AES-GCM cases of draft-mcgrew-gcm-test-01 section 4 (whole ESP packets), without that of the
/// 24-byte key.
const ESP: [Vector; 13] = [
    [
        "4c80cdefbb5d10da906ac73c3613a634",
        "2e443b684956ed7e3b244cfe",
        "000043218765432100000000",
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f7369\
         70045f756470037369700963796265726369747902646b000021000101020201",
        "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf\
         65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
        "459018148f6cbe722fd04796562dfdb4",
    ],
    [
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "0000a5f80000000a",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000\
         037369700963796265726369747902646b00000100010001",
        "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f\
         51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
        "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    ],
    [
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "112233440102030405060708",
        "4a2cbfe300000002",
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000\
         020405b40101040201020201",
        "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d34\
         7f0545659f14e99def842d8e",
        "b335f4eecfdbf831824b4c4915956c96",
    ],
    [
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "0000000000000001",
        "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c\
         6d6e6f707172737475767761626364656667686901020201",
        "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb6\
         4de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3",
        "f821d496eeb096e98ad2b69e4799c71d",
    ],
    [
        "3de09874b388e6491988d0c3607eae1f",
        "57690e434e280000a2fca1a3",
        "42f67e3f1010101010101010",
        "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c\
         6d6e6f707172737475767761626364656667686901020201",
        "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad7984\
         5bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a",
        "e0d731cc978ecafaeae88f00e80d6e48",
    ],
    [
        "3de09874b388e6491988d0c3607eae1f",
        "57690e434e280000a2fca1a3",
        "42f67e3f1010101010101010",
        "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed",
        "369f071f35e034be95f112e4e7d05d35",
    ],
    [
        "abbccddef00112233445566778899aab",
        "decaf888cafedebaceface74",
        "000001000000000000000001",
        "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18\
         d75b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b14923010101",
        "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feebaf2cb019\
         84e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68",
        "651f57e65f354f75ff17015769623436",
    ],
    [
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "73616c74616e640169766563",
        "17405e67156f3126dd0db99b",
        "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
        "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e",
        "451626c2415771e3b7eebca614c89b35",
    ],
    [
        "3de09874b388e6491988d0c3607eae1f",
        "57690e434e280000a2fca1a3",
        "42f67e3f1010101010101010",
        "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0001e8c18\
         d65759d52284a0352c71475c8880391c764d6e5ee0496b325ae270c03899493915010101",
        "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d54182800cadb0f68d99ef0\
         e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39ab533163aad4550ee5160975",
        "cdb608c5769189609763b8e18caa81e2",
    ],
    [
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "73616c74616e640169766563",
        "17405e67156f3126dd0db99b",
        "636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f\
         67696573017468617477696c6c01646566696e65746f6d6f72726f7701020201",
        "d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10e5487df0\
         74113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8",
        "c0cac587f249e56b11e24f30e44ccc76",
    ],
    [
        "7d773d00c144c525ac619d18c84a3f47",
        "d966426743457e9182443bc6",
        "335467aeffffffff",
        "01020201",
        "437f866b",
        "cb3f699fe9b0822bac961c4504bef270",
    ],
    [
        "abbccddef00112233445566778899aab",
        "decaf888cafedebaceface74",
        "000001000000000000000001",
        "746f016265016f72016e6f7401746f0162650001",
        "29c9fc69a197d038ccdd14e2ddfcaa0543332164",
        "412503524303ed3c6c5f283843af8c3e",
    ],
    [
        "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
        "7475726e333021696765746d",
        "796b6963ffffffffffffffff",
        "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c\
         6d6e6f707172737401020201",
        "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a3\
         2b42458fb57dbe821dcc63b9",
        "d0937ba2945f669368661a329fb4c053",
    ],
];

/// RFC 8439 section 2.8.2.
const CHACHA: Vector = [
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "070000004041424344454647",
    "50515253c0c1c2c3c4c5c6c7",
    "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20\
     4966204920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f722074686520\
     6675747572652c2073756e73637265656e20776f756c642062652069742e",
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fa\
     fb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4\
     fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116",
    "1ae10b594f09e26a7e902ecbd0600691",
];

/// RFC 7634 appendix A: a whole ESP packet.
const CHACHA_ESP: Vector = [
    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    "a0a1a2a31011121314151617",
    "0102030400000005",
    "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d\
     0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637\
     01020204",
    "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa\
     95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b828\
     29f641e0",
    "76aaa8266b7fb0f7b11b369907e1ad43",
];

fn bytes(hex: &str) -> Vec<u8> {
    decode(hex).expect("hexadecimal digits").to_vec()
}

fn aead(backend: Backend, cipher: Cipher, key: &str) -> Aead {
    Aead::new(backend, cipher, &Key::from_hex(key).expect("a key")).expect("the right length")
}

/// All vectors with their ciphers.
fn all() -> impl Iterator<Item = (Cipher, &'static Vector)> {
    let aes = |vector: &'static Vector| match vector[0].len() {
        32 => (Cipher::Aes128Gcm, vector),
        _ => (Cipher::Aes256Gcm, vector),
    };
    let chacha = [&CHACHA, &CHACHA_ESP].map(|vector| (Cipher::ChaCha20Poly1305, vector));
    GCM.iter().chain(&ESP).map(aes).chain(chacha)
}

#[test]
fn every_library_reproduces_the_published_vectors() {
    for (cipher, [key, nonce, aad, plaintext, ciphertext, tag]) in all() {
        for &backend in Backend::ALL {
            let mut aead = aead(backend, cipher, key);
            let nonce = bytes(nonce).try_into().expect("12 bytes");
            let mut data = bytes(plaintext);
            let sealed = aead
                .seal_in_place(&nonce, &bytes(aad), &mut data)
                .expect("short");
            assert_eq!(data, bytes(ciphertext), "{backend:?} {key}");
            assert_eq!(sealed.to_vec(), bytes(tag), "{backend:?} {key}");

            data.extend(sealed);
            let opened = aead
                .open_in_place(&nonce, &bytes(aad), &mut data)
                .expect("authentic");
            assert_eq!(data[..opened], bytes(plaintext), "{backend:?} {key}");
        }
    }
}

#[test]
fn the_published_chacha_packet_is_opened() {
    let [key, nonce, aad, plaintext, ciphertext, tag] = CHACHA_ESP;
    let (aad, nonce) = (bytes(aad), bytes(nonce));
    let packet = [aad, nonce[4..].to_vec(), bytes(ciphertext), bytes(tag)].concat();
    for &backend in Backend::ALL {
        let aead = aead(backend, Cipher::ChaCha20Poly1305, key);
        let salt = Salt::from([nonce[0], nonce[1], nonce[2], nonce[3]]);
        let window = Window::new(1024).expect("an allowed size");
        let mut sa = InboundSa::new(0x0102_0304, aead, salt, false, window);
        let mut buf = packet.clone();
        let opened = sa.open(&mut buf, 0..packet.len()).expect("authentic");
        assert_eq!((opened.sequence, opened.next_header), (5, NEXT_IPV4));
        // 84 bytes of ICMP over IPv4; two bytes of padding, their number and the next header go.
        assert_eq!(buf[opened.inner], bytes(plaintext)[..84]);
    }
}

#[test]
fn the_published_esp_packets_are_authentic() {
    for [key, nonce, aad, plaintext, ciphertext, tag] in &ESP {
        let (aad, nonce) = (bytes(aad), bytes(nonce));
        let esn = aad.len() == 12;
        let cipher = match key.len() {
            32 => Cipher::Aes128Gcm,
            _ => Cipher::Aes256Gcm,
        };
        let sequence = aad[4..]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        let low = &aad[aad.len() - 4..];
        let packet = [&aad[..4], low, &nonce[4..], &bytes(ciphertext), &bytes(tag)].concat();
        for &backend in Backend::ALL {
            let mut window = Window::new(1024).expect("an allowed size");
            window.resume(sequence - 1);
            let salt = Salt::from([nonce[0], nonce[1], nonce[2], nonce[3]]);
            let spi = u32::from_be_bytes([aad[0], aad[1], aad[2], aad[3]]);
            let mut sa = InboundSa::new(spi, aead(backend, cipher, key), salt, esn, window);
            let mut buf = packet.clone();
            // Authentic; then the next header, which the vectors set to 1, is refused.
            let refused = sa.open(&mut buf, 0..packet.len());
            assert_eq!(refused, Err(Refused::BadNextHeader), "{plaintext}");
            assert_eq!(sa.sequence(), sequence);
            assert_eq!(buf[16..packet.len() - 16], bytes(plaintext));
        }
    }
}
